//! Training by several processes, here threads of one: what the MPI build does, but for MPI.

use adamant::data::{self, Dataset};
use adamant::train::{EpochRecord, Observer, Outcome, Peers, Recipe, Trainer, Weights, checkpoint};
use adamant::{Device, Error, Result};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What the ranks of one exchange have given so far, by the number of the exchange.
#[derive(Default)]
struct Room {
    exchanges: Mutex<Vec<Vec<Option<Vec<f32>>>>>,
    given: Condvar,
}

struct Thread {
    rank: usize,
    count: usize,
    room: Arc<Room>,
    done: std::cell::Cell<usize>,
    /// Exchanges after which it is heard of no more.
    lasts: usize,
}

impl Peers for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.count
    }

    fn gather(&self, own: &[f32]) -> Result<Vec<Vec<f32>>> {
        let number = self.done.get();
        self.done.set(number + 1);
        let lost = || Error::Peers("rank 1 is not heard of".into());
        if number >= self.lasts {
            return Err(lost());
        }
        let mut exchanges = self.room.exchanges.lock().unwrap();
        if exchanges.len() <= number {
            exchanges.resize(number + 1, vec![None; self.count]);
        }
        exchanges[number][self.rank] = Some(own.to_vec());
        self.room.given.notify_all();
        let missing =
            |exchanges: &mut Vec<Vec<Option<Vec<f32>>>>| exchanges[number].iter().any(Option::is_none);
        let (exchanges, waited) =
            self.room.given.wait_timeout_while(exchanges, Duration::from_secs(20), missing).unwrap();
        if waited.timed_out() {
            return Err(lost());
        }
        Ok(exchanges[number].iter().map(|given| given.clone().unwrap()).collect())
    }
}

#[derive(Default)]
struct Records(Vec<EpochRecord>);

impl Observer for Records {
    fn epoch(&mut self, record: &EpochRecord) -> Result<()> {
        self.0.push(record.clone());
        Ok(())
    }
}

fn recipe() -> Recipe {
    Recipe {
        model: "mlp-32".into(),
        epsilon: "0.05".into(),
        step_size: "0.02".into(),
        steps: 3,
        epsilon_warmup: 0.0,
        epochs: 3,
        batch: 50,
        // 21 batches of 50 and one of 1: one process has no image of that.
        train_images: 1051,
        validation: 100,
        learning_rate: 1e-3,
        weight_average: 0.9,
        ..Recipe::default()
    }
}

fn sample() -> Dataset {
    data::load("mnist").unwrap().train
}

/// What a rank ends with.
struct Ended {
    outcome: Result<Outcome>,
    records: Vec<EpochRecord>,
    weights: Weights,
}

/// Trains in so many threads; the last one is lost after `lasts` exchanges. Rank 0 saves into `folder` and all go on from
/// what is there, where it is given.
fn train(recipe: &Recipe, count: usize, lasts: usize, folder: Option<&Path>) -> Vec<Ended> {
    let room = Arc::new(Room::default());
    let rank = |rank: usize| {
        let lasts = if rank + 1 == count { lasts } else { usize::MAX };
        let thread = Thread { rank, count, room: room.clone(), done: 0.into(), lasts };
        let peers: Option<Box<dyn Peers>> = if count > 1 { Some(Box::new(thread)) } else { None };
        let data = sample();
        let network = recipe.network(data.image, data.classes).unwrap();
        let mut trainer = Trainer::with_peers(recipe.clone(), network, &data, &Device::cpu(), peers).unwrap();
        if let Some(folder) = folder {
            let saved = folder.join("resume.safetensors");
            if saved.exists() {
                trainer.resume(folder, checkpoint::load_resume(&saved).unwrap()).unwrap();
            }
            if rank == 0 {
                trainer.save_into(folder);
            }
        }
        let mut records = Records::default();
        let outcome = trainer.run(&mut records, &AtomicBool::new(false));
        Ended { outcome, records: records.0, weights: trainer.weights().unwrap() }
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..count).map(|at| scope.spawn(move || rank(at))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Records without the time that things took.
fn timeless(records: &[EpochRecord]) -> Vec<EpochRecord> {
    let timeless =
        |record: &EpochRecord| EpochRecord { seconds: 0.0, examples_per_second: 0.0, ..record.clone() };
    records.iter().map(timeless).collect()
}

#[test]
fn several_processes_learn_what_one_learns() {
    let plain = recipe();
    let clipped = Recipe { clip_gradient: 0.5, optimizer: "sgd".into(), learning_rate: 0.05, ..recipe() };
    let mixed = Recipe { augment: vec!["mixup:1".into()], method: "standard".into(), ..recipe() };
    let trades = Recipe { method: "trades".into(), ..recipe() };
    // TRADES' attack begins so near the image that its first gradient is rounding to a part, and takes the sign of it: sums
    // in another order turn some signs over.
    for (recipe, bound) in [(plain, 1e-5), (clipped, 1e-5), (mixed, 1e-5), (trades, 2e-4)] {
        let one = train(&recipe, 1, usize::MAX, None).remove(0);
        for count in [2, 3] {
            let all = train(&recipe, count, usize::MAX, None);
            for (rank, ended) in all.iter().enumerate() {
                assert_eq!(*ended.outcome.as_ref().unwrap(), Outcome::Finished);
                // The same bits in every process.
                assert!(ended.weights == all[0].weights, "rank {rank} of {count} holds other weights");
                assert_eq!(timeless(&ended.records), timeless(&all[0].records));
                for (together, alone) in ended.records.iter().zip(&one.records) {
                    let far = (together.loss - alone.loss).abs() / alone.loss;
                    assert!(far < bound, "{}, {count}: {} and {}", recipe.method, together.loss, alone.loss);
                }
            }
        }
    }
}

#[test]
fn a_lost_process_stops_the_others_and_leaves_what_is_gone_on_from() {
    let whole = train(&recipe(), 2, usize::MAX, None);
    let folder = tempfile::tempdir().unwrap();
    // 22 steps and one word about validation an epoch: lost in the middle of the second.
    let lost = train(&recipe(), 2, 30, Some(folder.path()));
    for ended in &lost {
        let error = ended.outcome.as_ref().unwrap_err().to_string();
        assert!(error.contains("rank 1 is not heard of"), "{error}");
    }
    assert!(lost[0].outcome.as_ref().unwrap_err().to_string().contains("Saved in"));
    let saved = checkpoint::load_resume(&folder.path().join("resume.safetensors")).unwrap();
    assert_eq!((saved.position.epoch, saved.position.step), (1, 7));
    let again = train(&recipe(), 2, usize::MAX, Some(folder.path()));
    assert!(again[0].weights == whole[0].weights && again[1].weights == whole[0].weights);
    // And by one process, to what it would have come to but for rounding.
    assert_eq!(timeless(&again[0].records), timeless(&whole[0].records[1..]));
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let refuse = |recipe: Recipe, words: &str| {
        let data = sample();
        let network = recipe.network(data.image, data.classes).unwrap();
        let peers = Thread { rank: 0, count: 2, room: Arc::default(), done: 0.into(), lasts: 0 };
        let made = Trainer::with_peers(recipe, network, &data, &Device::cpu(), Some(Box::new(peers)));
        let error = made.err().expect("it is taken").to_string();
        assert!(error.contains(words), "{error}");
    };
    refuse(Recipe { method: "free".into(), ..recipe() }, "needs whole batches");
    refuse(Recipe { awp_gamma: 0.01, ..recipe() }, "needs whole batches");
    refuse(Recipe { micro_batch: 25, ..recipe() }, "leave it out");
    refuse(Recipe { batch: 1, ..recipe() }, "there are 2 processes");
}
