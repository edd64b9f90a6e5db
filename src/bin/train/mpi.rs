//! Several processes by MPI: `mpirun -n 2 train --mpi ...`, in a build with the cargo feature `mpi`.

use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(feature = "mpi"))]
pub(crate) use without::start;
#[cfg(feature = "mpi")]
pub(crate) use world::start;

/// Whether this process may wait for the others when it leaves them.
static DONE: AtomicBool = AtomicBool::new(false);

/// From now on leaving the others is orderly: training is done in all of them.
pub(crate) fn done() {
    DONE.store(true, Ordering::Relaxed);
}

#[cfg(not(feature = "mpi"))]
mod without {
    use adamant::train::Peers;
    use adamant::{Error, Result};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    /// There is none in this build.
    pub(crate) fn start(_: Arc<AtomicBool>) -> Result<Box<dyn Peers>> {
        let why = "this build has no MPI: build it with `cargo build --release --features mpi` (on Debian install \
                   libopenmpi-dev, openmpi-bin and libclang-dev first)";
        Err(Error::argument("mpi", "asked for", why))
    }
}

#[cfg(feature = "mpi")]
mod world {
    use adamant::train::Peers;
    use adamant::{Error, Result};
    use mpi::environment::Universe;
    use mpi::ffi;
    use mpi::traits::Communicator;
    use std::os::raw::c_int;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    /// Longest that one process waits for the others: longer than testing, saving and the slowest step.
    const PATIENCE: Duration = Duration::from_secs(600);

    /// Longest that it waits once it is asked to stop. When a process dies, mpirun asks the others to stop and kills them a
    /// second later (`--mca odls_base_sigkill_timeout 30` gives them longer): what there is has to be saved by then.
    const LAST_PATIENCE: Duration = Duration::from_millis(300);

    /// How often it looks whether the others are there. MPI's own waiting would keep a core busy.
    const LOOK: Duration = Duration::from_micros(100);

    /// All processes that mpirun started.
    struct World {
        rank: usize,
        count: usize,
        stop: Arc<AtomicBool>,
        /// Leaves MPI when it is dropped, which waits for the others to do so.
        universe: Option<Universe>,
    }

    /// Joins the other processes; `stop` is set when this one is asked to stop.
    pub(crate) fn start(stop: Arc<AtomicBool>) -> Result<Box<dyn Peers>> {
        let unavailable = || Error::Peers("MPI could not be started, or was already".into());
        let universe = mpi::initialize().ok_or_else(unavailable)?;
        let world = universe.world();
        let (rank, count) = (world.rank() as usize, world.size() as usize);
        // SAFETY: MPI is initialised, and both handles are MPI's own constants. Errors are returned from now on, where they
        // would have ended the process.
        unsafe { ffi::MPI_Comm_set_errhandler(ffi::RSMPI_COMM_WORLD, ffi::RSMPI_ERRORS_RETURN) };
        Ok(Box::new(World { rank, count, stop, universe: Some(universe) }))
    }

    impl Peers for World {
        fn rank(&self) -> usize {
            self.rank
        }

        fn count(&self) -> usize {
            self.count
        }

        fn gather(&self, own: &[f32]) -> Result<Vec<Vec<f32>>> {
            let lost = |what: String| Error::Peers(format!("rank {} of {}: {what}", self.rank, self.count));
            let check = |code: c_int, doing: &str| match code as u32 {
                ffi::MPI_SUCCESS => Ok(()),
                _ => Err(lost(format!("MPI reports error {code} {doing}"))),
            };
            let length = c_int::try_from(own.len()).map_err(|_| lost("too many weights for MPI".into()))?;
            // Both live until the exchange is over; where it never is, they are never freed, for MPI may still write.
            let own = own.to_vec();
            let mut all = vec![0f32; own.len() * self.count];
            // SAFETY: the buffers are as long as is said, `all` for as much from every process; they outlive the request, by
            // being forgotten where it does not complete.
            let (code, mut request) = unsafe {
                let mut request = ffi::RSMPI_REQUEST_NULL;
                let code = ffi::MPI_Iallgather(
                    own.as_ptr().cast(),
                    length,
                    ffi::RSMPI_FLOAT,
                    all.as_mut_ptr().cast(),
                    length,
                    ffi::RSMPI_FLOAT,
                    ffi::RSMPI_COMM_WORLD,
                    &mut request,
                );
                (code, request)
            };
            let begin = Instant::now();
            let mut asked: Option<Instant> = None;
            let waited = check(code, "when the exchange begins").and_then(|()| {
                loop {
                    let mut done: c_int = 0;
                    // SAFETY: the request is the one above, and nobody asks for its status.
                    let code = unsafe { ffi::MPI_Test(&mut request, &mut done, ffi::RSMPI_STATUS_IGNORE) };
                    check(code, "while waiting for the others")?;
                    if done != 0 {
                        return Ok(());
                    }
                    if asked.is_none() && self.stop.load(Ordering::Relaxed) {
                        asked = Some(Instant::now());
                    }
                    if asked.is_some_and(|asked| asked.elapsed() > LAST_PATIENCE) {
                        return Err(lost("asked to stop, and the others are not heard of".into()));
                    }
                    if begin.elapsed() > PATIENCE {
                        return Err(lost(format!(
                            "the others are not heard of for {} s",
                            PATIENCE.as_secs()
                        )));
                    }
                    std::thread::sleep(LOOK);
                }
            });
            if let Err(error) = waited {
                std::mem::forget((own, all));
                return Err(error);
            }
            Ok(all.chunks(own.len().max(1)).map(<[f32]>::to_vec).collect())
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            // After an error it must not wait for the others: leaving without a word makes mpirun end the job.
            if !super::DONE.load(Ordering::Relaxed) {
                std::mem::forget(self.universe.take());
            }
        }
    }
}
