//! What is asked for: the flags as a file in the folder of results, by which an evaluation is gone on with and verified.

use adamant::attack::{Norm, ThreatModel};
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
}

impl Default for Request {
    fn default() -> Request {
        Request {
            subject: String::new(),
            model: None,
            data: None,
            image_size: None,
            images: 0,
            stratified: false,
            attacks: vec!["fgsm".into(), "pgd".into()],
            norm: None,
            epsilon: None,
            restarts: 1,
            batch: 250,
            seed: 0,
        }
    }
}

impl Request {
    /// What the evaluation in this folder was asked for.
    pub(crate) fn read(folder: &Path) -> Result<Request> {
        let path = folder.join(FILE);
        if !path.is_file() {
            let why = format!("holds no {FILE}, so there is no evaluation in it: give the folder of one");
            return Err(Error::file(folder, why));
        }
        let text =
            std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "could not read what was asked for", e))?;
        toml::from_str(&text).map_err(|e| Error::file(path, format!("is not what evaluate writes: {e}")))
    }

    /// Writes it into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let text = toml::to_string_pretty(self).map_err(|e| Error::Unsupported(format!("{FILE}: {e}")))?;
        files::write_atomically(folder.join(FILE), text.as_bytes())
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
        // What training refuses is refused here.
        Recipe { norm: norm.to_string(), epsilon: epsilon.text().into(), ..Recipe::default() }.threat()
    }
}
