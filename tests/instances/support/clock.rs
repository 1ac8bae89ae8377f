//! The wall clock of an instance, that a fault can step: by libfaketime, where it is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// How a wall clock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Right,
    /// An hour slow. It takes expired tokens for good, and those it issues have expired elsewhere.
    Behind,
    /// An hour fast. It takes every token of the others for expired.
    Ahead,
    /// Two days fast. What it takes for expired it also takes for no longer needed.
    DaysAhead,
    /// By so many seconds.
    Seconds(i64),
}

impl Step {
    /// By how much it shows more than it should.
    pub fn seconds(self) -> i64 {
        match self {
            Self::Right => 0,
            Self::Behind => -3600,
            Self::Ahead => 3600,
            Self::DaysAhead => 2 * 86_400,
            Self::Seconds(seconds) => seconds,
        }
    }

    /// Whether tokens expire too early by it.
    pub fn is_fast(self) -> bool {
        self.seconds() > 0
    }
}

pub struct Clock {
    /// Where libfaketime reads how far to step. None: the clock cannot be stepped.
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

    /// Prepares a program to read this clock. Clocks that count since the start of the machine
    /// stay as they are, as they would if somebody set the time.
    pub fn give_to(&self, command: &mut Command) {
        let (Some(library), Some(file)) = (library(), &self.file) else { return };
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file);
        command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1");
    }

    pub fn set(&self, step: Step) {
        // While it changes, it counts as wrong.
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
        // Whole at any instant: the program reads it whenever it looks at its clock.
        let new = file.with_extension("new");
        fs::write(&new, format!("{:+}", step.seconds())).unwrap();
        fs::rename(&new, file).unwrap();
    }
}

/// Whether there is a libfaketime.
pub fn can_be_stepped() -> bool {
    library().is_some()
}

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    let candidates = folders.map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    candidates.into_iter().find(|path| path.exists())
}
