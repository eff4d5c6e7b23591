//! DPDK's environment (EAL): memory, drivers, threads. Once per process.
//!
//! [`Eal::init`] takes what the operator configured; the handle is shared by everything that needs
//! the environment, and the last one to go takes it down. EAL's log lines go to `tracing` with
//! target `dpdk`.

use super::error::DpdkError;
use dpdk_sys as sys;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the environment is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalConfig {
    /// Distinguishes several DPDK processes on one host.
    pub file_prefix: String,
    /// Memory taken at start, MiB. Without hugepages also the limit.
    pub memory_mib: u32,
    /// Back it with hugepages. They need not be mounted.
    pub hugepages: bool,
    /// PCI devices to take over, by address. Empty: no PCI at all.
    pub pci_allow: Vec<String>,
    /// CPU that EAL's main thread is counted on. The caller's affinity is left as it was.
    pub main_core: u16,
    /// More EAL arguments, appended as they are.
    pub extra: Vec<String>,
}

impl Default for EalConfig {
    fn default() -> Self {
        Self {
            file_prefix: "dunlin".into(),
            memory_mib: 256,
            hugepages: false,
            pci_allow: Vec::new(),
            main_core: 0,
            extra: Vec::new(),
        }
    }
}

impl EalConfig {
    fn arguments(&self) -> Vec<String> {
        let mut args: Vec<String> =
            ["dunlin", "--no-telemetry", "--file-prefix"].map(String::from).into();
        args.push(self.file_prefix.clone());
        args.extend(["-l".into(), self.main_core.to_string()]);
        args.extend(["-m".into(), self.memory_mib.to_string()]);
        // Nothing on disk either way: a killed process leaves nothing to clean up and no lock to
        // trip over, and there is no secondary process to share with.
        if self.hugepages {
            args.push("--in-memory".into());
        } else {
            args.extend(["--no-huge".into(), "--no-shconf".into()]);
        }
        if self.pci_allow.is_empty() {
            args.push("--no-pci".into());
        }
        for address in &self.pci_allow {
            args.extend(["-a".into(), address.clone()]);
        }
        args.extend(self.extra.iter().cloned());
        args
    }
}

/// The initialised environment. Clones share it.
#[derive(Debug, Clone)]
pub struct Eal(Arc<Environment>);

#[derive(Debug)]
struct Environment {
    pools: Mutex<Vec<Pool>>,
}

#[derive(Debug)]
struct Pool {
    pool: NonNull<sys::rte_mempool>,
    size: u32,
}

// SAFETY: a mempool may be used from any thread (it is created multi-producer, multi-consumer).
unsafe impl Send for Pool {}

static INITIALISED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Start the environment. Fails on a second call in the same process, even after the first
    /// environment is gone: DPDK cannot start twice.
    pub fn init(config: &EalConfig) -> Result<Self, DpdkError> {
        let args: Vec<CString> = config
            .arguments()
            .into_iter()
            .map(|text| c_string("EAL argument", &text))
            .collect::<Result<_, _>>()?;
        if INITIALISED.swap(true, Ordering::SeqCst) {
            return Err(DpdkError::AlreadyInitialised);
        }
        log_to_tracing();
        // EAL reorders the array and may keep pointers into it: both are left to it for good.
        let mut argv: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
        argv.push(std::ptr::null_mut());
        let argv: &'static mut [*mut c_char] = argv.leak();
        let argc = argv.len() - 1;

        let affinity = sched_getaffinity(Pid::from_raw(0));
        // SAFETY: argv is a NULL-terminated array of argc NUL-terminated strings, never freed;
        // the flag above makes this the only call in the process.
        let (rc, log) = with_log(|| unsafe { sys::rte_eal_init(argc as c_int, argv.as_mut_ptr()) });
        // EAL pins its main thread. Ours does other work, and threads inherit from it.
        if let Err(errno) = affinity.and_then(|a| sched_setaffinity(Pid::from_raw(0), &a)) {
            tracing::warn!(%errno, "the thread that started DPDK stays pinned");
        }
        if rc < 0 {
            let hint = if config.hugepages {
                "Are there free hugepages (grep Huge /proc/meminfo; \
                 echo 512 > /proc/sys/vm/nr_hugepages), and is this process root?"
            } else {
                "Is there enough free memory, and does the CPU exist?"
            };
            // SAFETY: reads this thread's rte_errno.
            let errno = unsafe { sys::dpdk_sys_errno() };
            return Err(DpdkError::call("cannot start DPDK's environment", errno, log, hint));
        }
        Ok(Self(Arc::new(Environment { pools: Mutex::new(Vec::new()) })))
    }

    /// Version of the DPDK library this process runs on, e.g. `DPDK 22.11.11`.
    pub fn version() -> String {
        // SAFETY: rte_version returns a static string.
        let version = unsafe { std::ffi::CStr::from_ptr(sys::rte_version()) };
        version.to_string_lossy().into_owned()
    }

    /// Make the calling thread known to DPDK, so that it has a buffer cache of its own. Without,
    /// each allocation and each free goes to the shared pool. Pin the thread first: its NUMA node
    /// is taken from its affinity. Undone when the value is dropped, on the same thread.
    pub fn register_worker_thread(&self) -> Result<WorkerThread, DpdkError> {
        // SAFETY: EAL is initialised (self), the calling thread registers itself.
        if unsafe { sys::rte_thread_register() } < 0 {
            // SAFETY: reads this thread's rte_errno.
            let errno = unsafe { sys::dpdk_sys_errno() };
            return Err(DpdkError::call(
                "cannot register the thread with DPDK",
                errno,
                Vec::new(),
                "Too many workers for this build of DPDK, or a thread registered twice?",
            ));
        }
        Ok(WorkerThread { _eal: self.clone(), _this_thread: PhantomData })
    }

    /// Pools live as long as the environment, so no buffer can outlive its pool.
    pub(super) fn keep_pool(&self, pool: NonNull<sys::rte_mempool>, size: u32) {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner).push(Pool { pool, size });
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // Everything that could allocate holds the environment, so from here on buffers can only
        // come back. A count that is not full means that somebody still owns one.
        let pools = self.pools.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: pools are never freed before this point.
        let complete = pools
            .iter()
            .all(|p| unsafe { sys::rte_mempool_avail_count(p.pool.as_ptr()) } == p.size);
        if !complete {
            tracing::warn!("packet buffers are still in use: DPDK's memory is left to the kernel");
            return;
        }
        // SAFETY: ports, pools and registered threads hold the environment: none is left; no
        // buffer is in use either.
        let rc = unsafe { sys::rte_eal_cleanup() };
        if rc < 0 {
            tracing::warn!(rc, "DPDK did not clean up");
        }
    }
}

/// A thread that DPDK knows. See [`Eal::register_worker_thread`].
#[derive(Debug)]
pub struct WorkerThread {
    _eal: Eal,
    // Must be dropped where it was made.
    _this_thread: PhantomData<*const ()>,
}

impl WorkerThread {
    /// The lcore id that DPDK gave to this thread: the index of its caches, not a CPU.
    pub fn lcore_id(&self) -> u32 {
        // SAFETY: reads a thread-local variable.
        unsafe { sys::dpdk_sys_lcore_id() }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        // SAFETY: the value is not Send, so this is the thread that registered.
        unsafe { sys::rte_thread_unregister() }
    }
}

/// Pin the calling thread to one CPU.
pub fn pin_current_thread(core: u16) -> Result<(), DpdkError> {
    let mut cpus = CpuSet::new();
    cpus.set(usize::from(core))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus))
        .map_err(|errno| DpdkError::Pin { core, errno })
}

/// A monotonic clock that costs one instruction: the CPU's time stamp counter, scaled by the
/// frequency that EAL measured. All clones tell the same time on every CPU (invariant TSC).
#[derive(Debug, Clone, Copy)]
pub struct TscClock {
    #[cfg(target_arch = "x86_64")]
    start: u64,
    /// Nanoseconds per tick, as a 32.32 fixed-point number.
    #[cfg(target_arch = "x86_64")]
    scale: u64,
    #[cfg(not(target_arch = "x86_64"))]
    start: std::time::Instant,
}

impl TscClock {
    /// A clock that starts at 0 now.
    #[cfg(target_arch = "x86_64")]
    pub fn new(_eal: &Eal) -> Self {
        // SAFETY: EAL is initialised, so the frequency is known.
        let hz = unsafe { sys::rte_get_tsc_hz() }.max(1);
        let scale = (1_000_000_000u128 << 32) / u128::from(hz);
        Self { start: ticks(), scale: scale as u64 }
    }

    /// Nanoseconds since the clock was made.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn now_ns(&self) -> u64 {
        let elapsed = ticks().saturating_sub(self.start);
        ((u128::from(elapsed) * u128::from(self.scale)) >> 32) as u64
    }

    /// A clock that starts at 0 now.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn new(_eal: &Eal) -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// Nanoseconds since the clock was made.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn ticks() -> u64 {
    // SAFETY: every x86-64 has the instruction, and Linux leaves it to user space.
    unsafe { core::arch::x86_64::_rdtsc() }
}

pub(super) fn c_string(what: &'static str, text: &str) -> Result<CString, DpdkError> {
    CString::new(text).map_err(|_| DpdkError::Nul { what, text: text.to_owned() })
}

/// Error lines that DPDK logs while a control call runs: its return values say little.
static RECORDED: Mutex<Option<Vec<String>>> = Mutex::new(None);
/// Control calls that attach, configure or detach devices are made one at a time.
static CONTROL: Mutex<()> = Mutex::new(());
/// Lines kept of one call.
const RECORD_LIMIT: usize = 8;

/// Run a control call, alone, and give back what DPDK logged meanwhile at error level.
pub(super) fn with_log<R>(call: impl FnOnce() -> R) -> (R, Vec<String>) {
    let _alone = CONTROL.lock().unwrap_or_else(PoisonError::into_inner);
    *recorded() = Some(Vec::new());
    let result = call();
    let log = recorded().take().unwrap_or_default();
    (result, log)
}

fn recorded() -> MutexGuard<'static, Option<Vec<String>>> {
    RECORDED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn log_to_tracing() {
    // SAFETY: the sink is a function, valid for ever; the stream is handed to DPDK for good.
    unsafe {
        let stream = sys::dpdk_sys_log_stream(Some(log_line));
        if !stream.is_null() {
            sys::rte_openlog_stream(stream);
        }
    }
}

/// Called by DPDK with each line it logs, on any thread.
unsafe extern "C" fn log_line(severity: c_int, text: *const c_char, len: usize) {
    // SAFETY: the shim passes the buffer of a write: len readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    for line in String::from_utf8_lossy(bytes).lines().filter(|l| !l.trim().is_empty()) {
        match severity as u32 {
            0..=sys::DPDK_SYS_LOG_ERR => {
                tracing::error!(target: "dpdk", "{line}");
                if let Some(lines) = recorded().as_mut().filter(|l| l.len() < RECORD_LIMIT) {
                    lines.push(line.trim().to_owned());
                }
            }
            sys::DPDK_SYS_LOG_WARNING => tracing::warn!(target: "dpdk", "{line}"),
            sys::DPDK_SYS_LOG_NOTICE | sys::DPDK_SYS_LOG_INFO => {
                tracing::info!(target: "dpdk", "{line}");
            }
            _ => tracing::debug!(target: "dpdk", "{line}"),
        }
    }
}
