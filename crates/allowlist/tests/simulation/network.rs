//! The ways of one instance to the bus and to the store, which delay, hold back and lose messages; pauses of the
//! whole instance; and its clocks, which drift.

use std::{
    ops::Range,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use fastrand::Rng;
use futures::{FutureExt, future::BoxFuture};
use hallpass_allowlist::{BusError, Clock, MemoryServer, Network, UnixSeconds, Uptime};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

/// The wall time at which a run begins.
const BEGIN: UnixSeconds = 1_800_000_000;

/// The random numbers of a run.
#[derive(Clone)]
pub struct Random(Arc<Mutex<Rng>>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Rng::with_seed(seed))))
    }

    pub fn with<T>(&self, work: impl FnOnce(&mut Rng) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A duration in this range of milliseconds.
    pub fn milliseconds(&self, range: Range<u64>) -> Duration {
        Duration::from_micros(self.with(|rng| rng.u64(range.start * 1000..range.end * 1000)))
    }

    pub fn is(&self, percent: u8) -> bool {
        self.with(|rng| rng.u8(..100) < percent)
    }
}

/// A value that can be waited for. Other than with `tokio::sync::watch`, those who wait are woken in order, so that
/// the seed determines it.
#[derive(Default)]
struct Signal<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Signal<T> {
    fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    fn get(&self) -> T {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, value: T) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        self.changed.notify_waiters();
    }

    /// Resolves when the value meets the condition, with the value.
    async fn wait_for(&self, is_met: impl Fn(&T) -> bool) -> T {
        loop {
            let changed = self.changed.notified();
            let value = self.get();
            if is_met(&value) {
                return value;
            }
            changed.await;
        }
    }
}

/// Whether an instance is stopped, as by SIGSTOP or a hypervisor.
#[derive(Default)]
pub struct Pause(Arc<Signal<bool>>);

impl Pause {
    pub fn set(&self, is_paused: bool) {
        self.0.set(is_paused);
    }

    /// Resolves when the instance runs.
    pub fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let paused = Arc::clone(&self.0);
        async move {
            paused.wait_for(|is_paused| !is_paused).await;
        }
    }
}

/// Runs a future only while its instance runs.
pub struct Gated<F> {
    pause: Arc<Pause>,
    waiting: Option<BoxFuture<'static, ()>>,
    inner: Pin<Box<F>>,
}

impl<F: Future> Gated<F> {
    pub fn new(pause: &Arc<Pause>, inner: F) -> Self {
        Self { pause: Arc::clone(pause), waiting: None, inner: Box::pin(inner) }
    }
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.waiting.is_none() && self.pause.0.get() {
            self.waiting = Some(self.pause.over().boxed());
        }
        if let Some(waiting) = &mut self.waiting {
            if waiting.poll_unpin(context).is_pending() {
                return Poll::Pending;
            }
            self.waiting = None;
        }
        self.inner.as_mut().poll(context)
    }
}

/// How messages travel.
#[derive(Debug, Clone)]
pub struct Weather {
    /// The delay of most messages, in milliseconds.
    pub delay: Range<u64>,
    /// One message in four is lost and sent again, and takes this many milliseconds.
    pub resent: Option<Range<u64>>,
    /// Connections are closed, and none can be opened.
    pub is_cut: bool,
    /// Messages are held back until the weather changes.
    pub is_silent: bool,
}

impl Weather {
    pub const FINE: Self = Self { delay: 0..2, resent: None, is_cut: false, is_silent: false };
}

/// The connection is closed.
#[derive(Debug)]
pub struct Closed;

/// The way from one instance to a service, and back.
pub struct Wire {
    weather: Signal<Weather>,
    pause: Arc<Pause>,
    random: Random,
}

impl Wire {
    pub fn new(pause: &Arc<Pause>, random: &Random) -> Arc<Self> {
        Arc::new(Self {
            weather: Signal::new(Weather::FINE),
            pause: Arc::clone(pause),
            random: random.clone(),
        })
    }

    pub fn set(&self, weather: Weather) {
        self.weather.set(weather);
    }

    /// Resolves when a message has crossed.
    pub async fn cross(&self) -> Result<(), Closed> {
        self.pause.over().await;
        let weather = self.weather.wait_for(|weather| weather.is_cut || !weather.is_silent).await;
        if weather.is_cut {
            return Err(Closed);
        }
        let crossing = async {
            let resent = weather.resent.filter(|_| self.random.is(25));
            time::sleep(self.random.milliseconds(resent.unwrap_or(weather.delay))).await;
            self.weather.wait_for(|weather| !weather.is_silent).await;
        };
        tokio::select! {
            biased;
            _ = self.weather.wait_for(|weather| weather.is_cut) => return Err(Closed),
            () = crossing => {}
        }
        self.pause.over().await;
        Ok(())
    }

    /// Resolves when the instance notices that this time has passed: not while it is stopped.
    pub fn elapsed(&self, time: Duration) -> BoxFuture<'static, ()> {
        let over = self.pause.over();
        async move {
            time::sleep(time).await;
            over.await;
        }
        .boxed()
    }
}

/// The way of one instance to the servers of the bus.
pub struct ToBus {
    pub wire: Arc<Wire>,
    /// The server to which new connections lead.
    pub server: Mutex<MemoryServer>,
    /// Whether connections to earlier servers go on.
    pub earlier_live: AtomicBool,
}

impl Network for ToBus {
    fn server(&self) -> Result<MemoryServer, BusError> {
        Ok(self.server.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn cross(&self, server: &MemoryServer) -> BoxFuture<'static, Result<(), BusError>> {
        let is_current = self.server().is_ok_and(|current| current.is(server));
        if !is_current && !self.earlier_live.load(Ordering::Relaxed) {
            return std::future::ready(Err(BusError::closed())).boxed();
        }
        let wire = Arc::clone(&self.wire);
        async move { wire.cross().await.map_err(|Closed| BusError::closed()) }.boxed()
    }

    fn elapsed(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.wire.elapsed(time)
    }
}

/// Clocks that run at another rate than those of others, and a wall clock that may be wrong.
pub struct DriftingClock {
    began: Instant,
    /// Within 10 %, the most that the kernel lets NTP slew a clock by.
    rate: f64,
    since_boot: Duration,
    /// The seconds by which the wall clock is ahead.
    pub ahead: AtomicI64,
}

impl DriftingClock {
    pub fn new(random: &Random) -> Self {
        let (rate, since_boot) = random.with(|rng| (0.9 + 0.2 * rng.f64(), rng.u64(10..1_000_000)));
        let since_boot = Duration::from_secs(since_boot);
        Self { began: Instant::now(), rate, since_boot, ahead: AtomicI64::default() }
    }
}

impl Clock for DriftingClock {
    fn now(&self) -> UnixSeconds {
        BEGIN + self.began.elapsed().as_secs().cast_signed() + self.ahead.load(Ordering::Relaxed)
    }

    fn uptime(&self) -> Uptime {
        Uptime::after(self.since_boot + self.began.elapsed().mul_f64(self.rate))
    }
}
