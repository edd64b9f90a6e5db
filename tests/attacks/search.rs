//! Attacks that remember something of each example: rows move between batches, and nothing changes by it.

use crate::house::{House, threat};
use adamant::attack::{
    Ascending, Attack, Evaluation, Norm, Observer, Pgd, Search, Site, ThreatModel, Witness,
};
use adamant::tape::Purpose;
use adamant::{Device, Result};

const IMAGES: usize = 120;

/// A random walk that keeps the best of what it saw: it draws, counts, reads a table, and remembers two things.
struct Walk {
    threat: ThreatModel,
    steps: usize,
    looks: usize,
    /// Numbers in its table; there should be one for each step.
    lengths: usize,
}

impl Walk {
    fn new(epsilon: &str, looks: usize) -> Walk {
        Walk { threat: threat(Norm::Linf, epsilon), steps: 12, looks, lengths: 12 }
    }
}

impl Search for Walk {
    fn name(&self) -> String {
        "walk".into()
    }

    fn threat(&self) -> &ThreatModel {
        &self.threat
    }

    fn line(&self) -> String {
        format!("walk, {}, {} steps, a look every {}", self.threat, self.steps, self.looks)
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn steps_between_looks(&self) -> usize {
        self.looks
    }

    fn is_random(&self) -> bool {
        true
    }

    fn runs(&self, _classes: usize) -> u32 {
        2
    }

    fn tables(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![("length", (0..self.lengths).map(|step| 0.2 / (1.0 + step as f64)).collect())]
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        let start = site.ball.random_start(site.draw(), Purpose::EVALUATION_START, true);
        site.keep("best", start);
        site.keep("loss", site.logits(start).cross_entropy(site.labels));
        site.keep_adversarial(start);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        let (images, one) = (site.x().shape(), [site.batch]);
        let (best, loss) = (site.state("best", images), site.state("loss", one));
        let noise = site.draw().uniform(Purpose::EVALUATION_START.stream(1), images).affine(2.0, -1.0);
        // Of the second run the steps are half as long.
        let length = site.number("length") * site.run().affine(-0.5, 1.0);
        let candidate = site.ball.project(best + noise.sign() * length);
        let now = site.logits(candidate).cross_entropy(site.labels);
        let better = now.greater(loss).reshape(site.per_example()).broadcast_to(images);
        let best = better.select(candidate, best);
        site.keep("best", best);
        site.keep("loss", now.max(loss));
        site.keep_adversarial(best);
    }
}

/// PGD that is looked at every so many steps.
struct Looked<'a>(Ascending<&'a Pgd>, usize);

impl Search for Looked<'_> {
    fn name(&self) -> String {
        self.0.name()
    }

    fn threat(&self) -> &ThreatModel {
        self.0.threat()
    }

    fn line(&self) -> String {
        format!("{}, a look every {}", self.0.line(), self.1)
    }

    fn steps(&self) -> usize {
        self.0.steps()
    }

    fn steps_between_looks(&self) -> usize {
        self.1
    }

    fn is_random(&self) -> bool {
        self.0.is_random()
    }

    fn step_size(&self) -> f64 {
        self.0.step_size()
    }

    fn start<'t>(&self, site: &Site<'_, 't>) {
        self.0.start(site);
    }

    fn step<'t>(&self, site: &Site<'_, 't>) {
        self.0.step(site);
    }
}

#[test]
fn neither_looks_nor_batches_change_a_verdict() {
    for device in [Device::cpu(), Device::gpu(&Device::adapters()[0]).unwrap()] {
        let house = House::new(&device, IMAGES);
        let walk = |looks| Walk::new("0.7", looks);
        let want = house.verdicts(&walk(12), IMAGES);
        let broken = want.clean_count() - want.robust_count();
        assert!(broken > 5, "the walk breaks {broken} images: too few to tell anything by");
        for (looks, batch) in [(12, 7), (5, IMAGES), (5, 7), (1, 50)] {
            let got = house.verdicts(&walk(looks), batch);
            // A look may find an image broken that a later step would have left: the walk climbs the loss alone.
            let lost = (0..IMAGES).filter(|&i| got.robust[i] && !want.robust[i]).count();
            assert_eq!(lost, 0, "a look every {looks}, batches of {batch}, {}", device.describe());
        }
        // The same looks: the same to the bit.
        let want = house.verdicts(&walk(5), IMAGES);
        assert_eq!(house.verdicts(&walk(5), 7), want, "{}", device.describe());
    }
}

#[test]
fn ascent_that_is_looked_at_is_the_same_ascent() {
    let house = House::new(&Device::cpu(), IMAGES);
    for (norm, epsilon, step) in [(Norm::Linf, "0.3", "0.05"), (Norm::L2, "2", "0.4"), (Norm::L1, "20", "5")]
    {
        let threat = threat(norm, epsilon);
        let pgd = Pgd { threat, steps: 10, step_size: step.parse().unwrap(), random_start: true };
        let whole = house.verdicts(&Ascending(&pgd), 50);
        assert!(whole.robust_count() < whole.clean_count(), "{} breaks nothing", pgd.line());
        for (looks, batch) in [(3, 50), (1, 11)] {
            let looked = house.verdicts(&Looked(Ascending(&pgd), looks), batch);
            assert_eq!(looked, whole, "{}, a look every {looks}", pgd.line());
        }
    }
}

/// Checks what it is told of.
#[derive(Default)]
struct Checks {
    progress: Vec<(usize, usize)>,
    witnesses: Vec<(usize, u32, f64)>,
    /// Looks before each witness.
    at: Vec<usize>,
    threat: Option<ThreatModel>,
}

impl Observer for &mut Checks {
    fn progress(&mut self, done: usize, all: usize) {
        self.progress.push((done, all));
    }

    fn broken(&mut self, witness: Witness<'_>) -> Result<()> {
        let threat = self.threat.as_ref().unwrap();
        let distance = threat.norm.distance(witness.clean, witness.adversarial);
        assert_eq!(distance, witness.distance);
        assert!(distance <= threat.epsilon.value());
        assert!(witness.adversarial.iter().all(|x| (0.0..=1.0).contains(x)));
        self.witnesses.push((witness.at, witness.prediction, distance));
        self.at.push(self.progress.len());
        Ok(())
    }
}

#[test]
fn every_broken_example_has_one_witness_and_progress_ends_at_the_end() {
    let house = House::new(&Device::cpu(), IMAGES);
    let walk = Walk::new("0.4", 5);
    let mut checks = Checks { threat: Some(walk.threat.clone()), ..Checks::default() };
    let verdicts = house.observed(&walk, 50, 1, &mut checks).unwrap();
    let mut told: Vec<usize> = checks.witnesses.iter().map(|witness| witness.0).collect();
    told.sort_unstable();
    let broken: Vec<usize> = (0..IMAGES).filter(|&i| !verdicts.robust[i]).collect();
    assert_eq!(told, broken);
    for &(at, prediction, distance) in &checks.witnesses {
        assert_ne!(prediction, house.labels[at]);
        assert_eq!(verdicts.distance[at], distance);
        assert_eq!(distance == 0.0, !verdicts.correct[at]);
    }
    assert_eq!(verdicts.outside, 0);
    assert!(checks.progress.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{:?}", checks.progress);
    assert!(checks.progress.iter().all(|&(done, all)| done <= all), "{:?}", checks.progress);
}

#[test]
fn a_batch_in_which_a_look_finds_nothing_goes_on_as_any_other() {
    let house = House::new(&Device::cpu(), IMAGES);
    let pgd = Pgd {
        threat: threat(Norm::Linf, "0.3"),
        steps: 12,
        step_size: "0.03".parse().unwrap(),
        random_start: true,
    };
    let mut checks = Checks { threat: Some(pgd.threat.clone()), ..Checks::default() };
    let whole = house.observed(&Looked(Ascending(&pgd), 1), IMAGES, 1, &mut checks).unwrap();
    let last = checks.at.last().copied().unwrap();
    assert!(
        (0..last).any(|look| !checks.at.contains(&look)),
        "something broke at every look: {:?}",
        checks.at
    );
    assert_eq!(house.verdicts(&Looked(Ascending(&pgd), 1), 7), whole);
    assert_eq!(house.verdicts(&Ascending(&pgd), IMAGES), whole);
}

#[test]
fn a_table_of_another_length_is_refused() {
    let house = House::new(&Device::cpu(), IMAGES);
    let walk = Walk { lengths: 5, ..Walk::new("0.4", 12) };
    let error = house.judge(&walk, 50).err().unwrap().to_string();
    assert!(error.contains("length") && error.contains('5'), "{error}");
}

#[test]
fn a_network_that_draws_random_numbers_draws_others_in_every_step() {
    let pgd = Pgd {
        threat: threat(Norm::Linf, "0.3"),
        steps: 4,
        step_size: "0.1".parse().unwrap(),
        random_start: true,
    };
    let mut house = House::new(&Device::cpu(), IMAGES);
    // The step, and whether it looks up what random numbers of its own are counted by.
    let counts = |house: &House| {
        let [_, _, step, ..] = Evaluation::schedules(&pgd, house.on(), "test", 8).unwrap();
        step.tensors.iter().any(|tensor| tensor.name.ends_with(".counters"))
    };
    assert!(!counts(&house), "a network that draws none would look them up for nothing");
    house.drop_pixels();
    assert!(counts(&house), "{} steps would go by the same numbers", pgd.steps);
}
