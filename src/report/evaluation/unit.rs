//! What is saved at once: what became of a group of examples under one run of an attack, and its bytes in a log (log.rs).

use super::log::Header;

/// What the record of a unit begins with.
pub(super) const KIND: u8 = 1;

/// Bytes of a verdict.
const VERDICT: usize = 4 + 4 + 4 + 1 + 8;

/// What became of an example under an attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Its place in the header's list.
    pub at: u32,
    /// Class predicted for the clean image.
    pub clean: u32,
    /// Class predicted for the last adversarial image that was looked at.
    pub adversarial: u32,
    /// Whether the clean image is classified right.
    pub correct: bool,
    /// Whether it withstood.
    pub robust: bool,
    /// Distance of the nearest image that breaks it; infinite where none was found.
    pub distance: f64,
}

/// An image that breaks an example.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The example's place in the header's list.
    pub at: u32,
    /// Class predicted for it.
    pub prediction: u32,
    /// How far it is from the clean image, in the attack's norm.
    pub distance: f64,
    /// Its pixels `[H,W,C]`, exactly.
    pub image: Vec<f32>,
}

/// What became of some examples under one run of an attack: what is saved at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The attack, by its place in the header's list.
    pub attack: usize,
    /// Which of the attack's runs: each is on what the ones before left standing.
    pub run: u32,
    /// Which group of the run's examples.
    pub group: usize,
    /// Misclassified images that left ball or box.
    pub outside: u64,
    /// Verdicts, in the order of the examples.
    pub verdicts: Vec<Verdict>,
    /// Witnesses, in the order of the examples.
    pub witnesses: Vec<Found>,
}

/// Takes numbers off the front of bytes.
pub(super) struct Taker<'a>(pub(super) &'a [u8]);

impl<'a> Taker<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    /// A count of things that take at least so many bytes each: no more than there are bytes left for.
    fn count(&mut self, each: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(each)? <= self.0.len()).then_some(count)
    }
}

impl Unit {
    /// Attack, run and group: what tells it from all others of a log.
    pub fn place(&self) -> (usize, u32, usize) {
        (self.attack, self.run, self.group)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![KIND];
        let mut put = |part: &[u8]| bytes.extend_from_slice(part);
        put(&(self.attack as u32).to_le_bytes());
        put(&self.run.to_le_bytes());
        put(&(self.group as u32).to_le_bytes());
        put(&self.outside.to_le_bytes());
        put(&(self.verdicts.len() as u32).to_le_bytes());
        for verdict in &self.verdicts {
            [verdict.at, verdict.clean, verdict.adversarial]
                .iter()
                .for_each(|number| put(&number.to_le_bytes()));
            put(&[u8::from(verdict.correct) | u8::from(verdict.robust) << 1]);
            put(&verdict.distance.to_le_bytes());
        }
        put(&(self.witnesses.len() as u32).to_le_bytes());
        for found in &self.witnesses {
            put(&found.at.to_le_bytes());
            put(&found.prediction.to_le_bytes());
            put(&found.distance.to_le_bytes());
            found.image.iter().for_each(|pixel| put(&pixel.to_le_bytes()));
        }
        bytes
    }

    /// The unit with these contents, behind the byte that says so.
    pub(super) fn parse(header: &Header, contents: &[u8]) -> std::result::Result<Unit, String> {
        let short = || "its lengths do not add up".to_string();
        let mut take = Taker(contents);
        let attack = take.u32().ok_or_else(short)? as usize;
        let run = take.u32().ok_or_else(short)?;
        let group = take.u32().ok_or_else(short)? as usize;
        if attack >= header.attacks.len() {
            return Err(format!("it is of attack {attack}, and there are {}", header.attacks.len()));
        }
        let outside = take.u64().ok_or_else(short)?;
        let example = |at: u32, before: Option<u32>| match at as usize >= header.examples.len() {
            true => Err(format!("example {at}: there are {}", header.examples.len())),
            false if before.is_some_and(|before| before >= at) => {
                Err(format!("example {at} is out of order"))
            }
            false => Ok(at),
        };
        let class = |class: u32| match (class as usize) < header.classes {
            true => Ok(class),
            false => Err(format!("class {class}: there are {}", header.classes)),
        };
        let distance = |distance: f64| match distance >= 0.0 {
            true => Ok(distance),
            false => Err(format!("a distance of {distance} is none")),
        };
        let mut verdicts: Vec<Verdict> = Vec::new();
        for _ in 0..take.count(VERDICT).ok_or_else(short)? {
            let at = example(take.u32().ok_or_else(short)?, verdicts.last().map(|verdict| verdict.at))?;
            let clean = class(take.u32().ok_or_else(short)?)?;
            let adversarial = class(take.u32().ok_or_else(short)?)?;
            let bits = take.u8().filter(|&bits| bits < 4).ok_or_else(short)?;
            verdicts.push(Verdict {
                at,
                clean,
                adversarial,
                correct: bits & 1 != 0,
                robust: bits & 2 != 0,
                distance: distance(take.f64().ok_or_else(short)?)?,
            });
        }
        let mut witnesses: Vec<Found> = Vec::new();
        let bytes = 4 * header.elements();
        for _ in 0..take.count(16 + bytes).ok_or_else(short)? {
            let at = example(take.u32().ok_or_else(short)?, witnesses.last().map(|found| found.at))?;
            if verdicts.binary_search_by_key(&at, |verdict| verdict.at).is_err() {
                return Err(format!("a witness is of example {at}, of which it has no verdict"));
            }
            let prediction = class(take.u32().ok_or_else(short)?)?;
            let distance = distance(take.f64().ok_or_else(short)?)?;
            let image = take.bytes(bytes).ok_or_else(short)?;
            let image = image.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            witnesses.push(Found { at, prediction, distance, image });
        }
        match take.0.is_empty() {
            true => Ok(Unit { attack, run, group, outside, verdicts, witnesses }),
            false => Err(short()),
        }
    }
}
