//! What is asked for: the flags as a file in the folder of results, by which an evaluation is gone on with and verified.

use adamant::attack::{Norm, Rational, ThreatModel};
use adamant::train::{Recipe, rational};
use adamant::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file's name.
const FILE: &str = "evaluate.toml";

/// An evaluation that is asked for. What is not given follows from the network's recipe, where it has one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Request {
    /// The network: a folder, a name under models/ or a file of weights.
    pub(crate) subject: String,
    /// The architecture of a file of weights.
    pub(crate) model: Option<String>,
    /// What the names in it mean.
    pub(crate) weights_names: Option<String>,
    /// The data set.
    pub(crate) data: Option<String>,
    /// Pixels on each side that pictures are resized to.
    pub(crate) image_size: Option<usize>,
    /// Test images; 0 takes all.
    pub(crate) images: usize,
    /// Whether these are of each class its share.
    pub(crate) stratified: bool,
    /// Names of attacks.
    pub(crate) attacks: Vec<String>,
    /// The norm.
    pub(crate) norm: Option<String>,
    /// The radius.
    pub(crate) epsilon: Option<String>,
    /// Runs of attacks with random starts.
    pub(crate) restarts: u32,
    /// Images that are attacked at once.
    pub(crate) batch: usize,
    /// Seed of everything random.
    pub(crate) seed: u64,
    /// Radii of the curve against epsilon; empty for the usual ones.
    pub(crate) sweep_epsilon: Option<String>,
    /// Steps of the curve against steps; empty for the usual ones.
    pub(crate) sweep_steps: Option<String>,
    /// Whether corrupted images are classified too.
    pub(crate) corruptions: bool,
    /// Which checks of the evaluation itself are made: none, quick or full.
    pub(crate) checks: String,
    /// Images that the attacks among the checks look at.
    pub(crate) check_images: Option<usize>,
    /// Another network, whose adversarial images are an attack besides.
    pub(crate) transfer: Option<String>,
}

/// Which checks there are.
const CHECKS: [&str; 3] = ["none", "quick", "full"];

impl Default for Request {
    fn default() -> Request {
        Request {
            subject: String::new(),
            model: None,
            weights_names: None,
            data: None,
            image_size: None,
            images: 0,
            stratified: false,
            attacks: vec!["autoattack".into()],
            norm: None,
            epsilon: None,
            restarts: 1,
            batch: 250,
            seed: 0,
            sweep_epsilon: None,
            sweep_steps: None,
            corruptions: false,
            checks: "full".into(),
            check_images: None,
            transfer: None,
        }
    }
}

impl Request {
    /// What the evaluation in this folder was asked for.
    pub(crate) fn read(folder: &Path) -> Result<Request> {
        let path = folder.join(FILE);
        if !folder.exists() {
            return Err(Error::file(folder, "there is no such folder: give that of an evaluation"));
        }
        if !path.is_file() {
            let why = format!(
                "holds no {FILE}, which says what was evaluated: give the folder of an evaluation; or, to verify a log that \
                 was moved, name the network and its data: MODEL --data DATA --verify FILE"
            );
            return Err(Error::file(folder, why));
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Error::io(&path, "could not read what was asked for", e))?;
        toml::from_str(&text).map_err(|e| Error::file(path, format!("is not what evaluate writes: {e}")))
    }

    /// Writes it into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let text = toml::to_string_pretty(self).map_err(|e| Error::Unsupported(format!("{FILE}: {e}")))?;
        files::write_atomically(folder.join(FILE), text.as_bytes())
    }

    /// Whether cheap checks are made, and costly ones.
    pub(crate) fn checks(&self) -> Result<(bool, bool)> {
        if let (Some(images), true) = (self.check_images, self.checks != "full") {
            let why = "goes with --checks full: others attack no images";
            return Err(Error::argument("check images", images, why));
        }
        match self.checks.as_str() {
            "none" => Ok((false, false)),
            "quick" => Ok((true, false)),
            "full" => Ok((true, true)),
            other => Err(Error::unknown("checks", other, &CHECKS)),
        }
    }

    /// The radii that `sweep_epsilon` names, as it names them.
    fn swept(&self) -> Result<Vec<Rational>> {
        let named = self.sweep_epsilon.as_deref().filter(|text| !text.is_empty());
        let radius = |part| rational("sweep of epsilon", part).map_err(|error| no_network(error, part));
        named.map_or(Ok(Vec::new()), |text| text.split(',').map(radius).collect())
    }

    /// The radii of the curve against epsilon, ascending.
    pub(crate) fn radii(&self, threat: &ThreatModel) -> Result<Vec<Rational>> {
        let epsilon = threat.epsilon.value();
        let mut radii = match self.sweep_epsilon.as_deref() {
            // Six digits: what is meant, not what binary fractions make of it.
            Some("") => {
                let radii = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
                    .map(|times| Rational::from((times * epsilon * 1e6).round() / 1e6));
                radii.into_iter().filter(|radius| within(threat.norm, radius).is_ok()).collect()
            }
            _ => self.swept()?,
        };
        for radius in &radii {
            if radius.value() <= 0.0 {
                let why = "must be above 0, where accuracy is that of clean images";
                return Err(Error::argument("sweep of epsilon", format!("`{radius}`"), why));
            }
            within(threat.norm, radius)?;
        }
        radii.sort_by(|a, b| a.value().total_cmp(&b.value()));
        radii.dedup_by(|a, b| a.value() == b.value());
        Ok(radii)
    }

    /// The steps of the curve against steps, ascending.
    pub(crate) fn steps(&self) -> Result<Vec<usize>> {
        let mut steps = match self.sweep_steps.as_deref() {
            None => return Ok(Vec::new()),
            Some("") => vec![1, 2, 5, 10, 20, 50, 100, 200],
            Some(text) => {
                let number = |part: &str| match part.trim().parse() {
                    Ok(steps) if (1..=1_000_000).contains(&steps) => Ok(steps),
                    _ => {
                        let why = "write numbers from 1 to 1000000, as 1,10,100";
                        Err(no_network(Error::argument("sweep of steps", format!("`{part}`"), why), part))
                    }
                };
                text.split(',').map(number).collect::<Result<Vec<usize>>>()?
            }
        };
        steps.sort_unstable();
        steps.dedup();
        Ok(steps)
    }

    /// Refuses curves against what is no number, before anything else is looked at.
    pub(crate) fn check(&self) -> Result<()> {
        self.swept().and(self.steps().map(drop))
    }

    /// Norm and radius: as given, else as in training.
    pub(crate) fn threat(&self, recipe: Option<&Recipe>) -> Result<ThreatModel> {
        let trained = recipe.map(Recipe::threat).transpose()?;
        let given = self.norm.as_deref().map(str::parse::<Norm>).transpose()?;
        let norm = given.or(trained.as_ref().map(|threat| threat.norm)).unwrap_or(Norm::Linf);
        let epsilon = match (&self.epsilon, trained) {
            (Some(text), _) => rational("epsilon", text)?,
            (None, Some(threat)) if threat.norm == norm => threat.epsilon,
            (None, Some(threat)) => {
                let why = format!("the network was trained for {threat}: give --epsilon for {norm}");
                return Err(Error::argument("norm", norm, why));
            }
            (None, None) => {
                let why = "there is no recipe beside these weights to take it from: give --epsilon, as 8/255";
                return Err(Error::argument("epsilon", "none", why));
            }
        };
        within(norm, &epsilon)
    }
}

/// A radius that training takes.
fn within(norm: Norm, epsilon: &Rational) -> Result<ThreatModel> {
    Recipe { norm: norm.to_string(), epsilon: epsilon.text().into(), ..Recipe::default() }.threat()
}

/// The error of a part of a curve, with what to do where it is a network: a flag whose value may be left out takes its name.
fn no_network(error: Error, part: &str) -> Error {
    match error {
        Error::Argument { what, value, why } if part.parse::<Rational>().is_err() => {
            let why =
                format!("{why}; if it is the network, name it before the flag: evaluate MODEL --sweep-...");
            Error::Argument { what, value, why }
        }
        other => other,
    }
}
