//! The wall clock of an instance, which a fault can step with libfaketime, if that is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// The difference between a wall clock and the right time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Right,
    /// An hour slow: the instance accepts expired tokens, and its own tokens have already expired elsewhere.
    Behind,
    /// An hour fast: every token of the other instances looks expired.
    Ahead,
    /// Two days fast: expired tokens also look old enough to be deleted.
    DaysAhead,
    /// Fast by this many seconds.
    Seconds(i64),
}

impl Step {
    /// The seconds by which the clock is fast.
    pub fn seconds(self) -> i64 {
        match self {
            Self::Right => 0,
            Self::Behind => -3600,
            Self::Ahead => 3600,
            Self::DaysAhead => 2 * 86_400,
            Self::Seconds(seconds) => seconds,
        }
    }

    /// Whether tokens expire too early by this clock.
    pub fn is_fast(self) -> bool {
        self.seconds() > 0
    }
}

pub struct Clock {
    /// The file from which libfaketime reads the offset. `None` if the clock cannot be stepped.
    file: Option<PathBuf>,
    step: Mutex<Step>,
}

impl Clock {
    pub fn new(folder: &Path) -> Self {
        let file = library().map(|_| folder.join("clock"));
        let clock = Self { file, step: Mutex::new(Step::Right) };
        clock.write(Step::Right);
        clock
    }

    /// The system's clock, which cannot be stepped: libfaketime makes each reading of a clock slow.
    pub fn of_the_system() -> Self {
        Self { file: None, step: Mutex::new(Step::Right) }
    }

    /// Makes a program read this clock. Monotonic clocks are not affected, as when somebody sets the time.
    pub fn give_to(&self, command: &mut Command) {
        let (Some(library), Some(file)) = (library(), &self.file) else { return };
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
        command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
    }

    pub fn set(&self, step: Step) {
        // During the change the clock counts as wrong.
        if step != Step::Right {
            *self.step.lock().unwrap() = step;
        }
        self.write(step);
        *self.step.lock().unwrap() = step;
    }

    pub fn step(&self) -> Step {
        *self.step.lock().unwrap()
    }

    fn write(&self, step: Step) {
        let Some(file) = &self.file else { return };
        // Replaced atomically: the program reads the file whenever it reads its clock.
        let new = file.with_extension("new");
        fs::write(&new, format!("{:+}", step.seconds())).unwrap();
        fs::rename(&new, file).unwrap();
    }
}

/// Whether libfaketime is installed.
pub fn can_be_stepped() -> bool {
    library().is_some()
}

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    let candidates = folders.map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    candidates.into_iter().find(|path| path.exists())
}
