//! The command line: its flags, and the request they make.

use super::attacks::names;
use super::common::Machine;
use super::request::Request;
use adamant::{Error, Result};
use clap::Parser;
use std::path::PathBuf;

/// Headings of `--help`; each flag stands under one.
const WHAT: &str = "What is evaluated";
const HOW: &str = "How it is attacked";
const MORE: &str = "What else is measured";
const RESULTS: &str = "Where the results live";

/// Says how robust a network is: attacks test images, counts what stands, keeps a witness of everything that falls.
///
/// With no arguments: the hardened model of MNIST that this repository holds, on 200 images of its embedded sample. Results go
/// into a new folder under runs/.
#[derive(Parser)]
#[command(version, about, max_term_width = 110, allow_negative_numbers = true)]
pub(crate) struct Flags {
    /// The network: the folder of a run of train, a model's folder or name under models/, a file of weights (safetensors, or
    /// PyTorch's .pt and .pth), or an ONNX file
    pub(crate) subject: Option<String>,
    /// The architecture of a file of weights, as for train: mnist-fast, preact-resnet18-w16, wide-resnet-28-10 ... [default:
    /// told from the file]
    #[arg(long, help_heading = WHAT, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// What the names in a file of weights mean, as for train: a table (TOML) with lines as "encoder.*" = "*" under [names]
    #[arg(long, help_heading = WHAT, value_name = "FILE")]
    pub(crate) weights_names: Option<String>,
    /// Data set, as for train [default: the one that the network was trained on]
    #[arg(long, help_heading = WHAT)]
    pub(crate) data: Option<String>,
    /// Resize pictures to so many pixels on each side [default: as in training]
    #[arg(long, help_heading = WHAT, value_name = "PIXELS")]
    pub(crate) image_size: Option<usize>,
    /// Evaluate the first so many test images alone; 0 takes all
    #[arg(long, help_heading = WHAT, value_name = "IMAGES")]
    pub(crate) images: Option<usize>,
    /// Of so many images, take of each class its share, instead of the first
    #[arg(long, help_heading = WHAT)]
    pub(crate) stratified: bool,
    /// Attacks, one after the other, as fgsm,pgd-100 or pgd-40:step=2/255,start=none (--list-attacks). Each is run on every
    /// image that is classified right; those of a suite on what the ones before left standing [default: autoattack]
    #[arg(long, help_heading = HOW, value_name = "NAMES")]
    pub(crate) attack: Option<Vec<String>>,
    /// List the attacks that there are, and stop
    #[arg(long, help_heading = HOW)]
    pub(crate) list_attacks: bool,
    /// Norm of the perturbation: linf, l2 or l1 [default: as in training, else linf]
    #[arg(long, help_heading = HOW)]
    pub(crate) norm: Option<String>,
    /// Radius of the perturbation in pixel values (0 to 1): a fraction as 8/255, or a decimal [default: as in training]
    #[arg(long, help_heading = HOW, allow_hyphen_values = true)]
    pub(crate) epsilon: Option<String>,
    /// Runs of attacks with random starts whose names say no other number (pgd-40:restarts=5), each on what still stands
    /// [default: 1]
    #[arg(long, help_heading = HOW, value_name = "RUNS")]
    pub(crate) restarts: Option<u32>,
    /// Images that are attacked at once: to the CPU's verdicts it is all one. A run of an attack is saved after four such
    /// batches; what is under way is lost by a kill [default: 250]
    #[arg(long, help_heading = HOW, value_name = "IMAGES")]
    pub(crate) batch: Option<usize>,
    /// Seed of everything random [default: 0]
    #[arg(long, help_heading = HOW)]
    pub(crate) seed: Option<u64>,
    /// Accuracy against epsilon: attacks at these radii as well (0.1,0.2,0.3), each on what the smaller ones left standing
    /// [default with --sweep-epsilon: from a quarter to twice epsilon]
    #[arg(long, help_heading = MORE, value_name = "RADII", num_args = 0..=1, default_missing_value = "")]
    pub(crate) sweep_epsilon: Option<String>,
    /// Accuracy against steps: PGD with so many steps as well (1,10,100) [default with --sweep-steps: 1 to 200]
    #[arg(long, help_heading = MORE, value_name = "STEPS", num_args = 0..=1, default_missing_value = "")]
    pub(crate) sweep_steps: Option<String>,
    /// Accuracy on corrupted images: noise, blur, contrast, brightness and JPEG at five strengths
    #[arg(long, help_heading = MORE)]
    pub(crate) corruptions: bool,
    /// Look for signs that the evaluation fools itself: quick (a few passes), full (other attacks too), or none
    #[arg(long, help_heading = MORE, value_name = "WHICH")]
    pub(crate) checks: Option<String>,
    /// Images that the attacks among the checks look at: 1000 are needed to see 0.3 points [default: as many as cost half of what
    /// the evaluation did, and 100 at least]
    #[arg(long, help_heading = MORE, value_name = "IMAGES")]
    pub(crate) check_images: Option<usize>,
    /// An attack besides: images made on another network (as MODEL; on the same data) by 40 steps of PGD, and judged by this one.
    /// It counts in the worst case; an attack that sees the network ought to find what they do
    #[arg(long, help_heading = HOW, value_name = "MODEL")]
    pub(crate) transfer: Option<String>,
    /// Folder for the results; must not hold files yet [default: a new one under runs/]
    #[arg(long, help_heading = RESULTS, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the interrupted evaluation in this folder, to the same bits as if it had not stopped
    #[arg(long, help_heading = RESULTS, value_name = "FOLDER")]
    pub(crate) resume: Option<PathBuf>,
    /// Re-check the witnesses in this folder (or its evaluation.log) on the CPU, in f64 and by their bits: inside of ball
    /// and box, and misclassified. Exits with 1 where any is not
    #[arg(long, help_heading = RESULTS, value_name = "FILE")]
    pub(crate) verify: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

/// What is evaluated where nothing is named, and on how many images: as many as a first look has patience for.
const HOUSE: &str = "models/mnist-fast-pgd";
const HOUSE_IMAGES: usize = 200;

/// Most restarts, and images at once.
const MOST: usize = 1_000_000;

impl Flags {
    /// What they ask for, where they do not go on with something.
    pub(crate) fn request(&self) -> Result<Request> {
        let subject = self.subject.clone().unwrap_or_else(|| HOUSE.into());
        let positive = |what: &str, number: Option<usize>| match number {
            Some(0) => Err(Error::argument(what, 0, "must be at least 1")),
            Some(many) if many > MOST => Err(Error::argument(what, many, format!("must be at most {MOST}"))),
            _ => Ok(()),
        };
        positive("batch", self.batch)?;
        positive("check images", self.check_images)?;
        positive("restarts", self.restarts.map(|restarts| restarts as usize))?;
        let usual = Request::default();
        let request = Request {
            subject,
            model: self.model.clone(),
            weights_names: self.weights_names.clone(),
            data: self.data.clone(),
            image_size: self.image_size,
            images: self.images.unwrap_or(if self.subject.is_some() { usual.images } else { HOUSE_IMAGES }),
            stratified: self.stratified,
            attacks: match &self.attack {
                Some(given) => names(given),
                None => usual.attacks,
            },
            norm: self.norm.clone(),
            epsilon: self.epsilon.clone(),
            restarts: self.restarts.unwrap_or(usual.restarts),
            batch: self.batch.unwrap_or(usual.batch),
            seed: self.seed.unwrap_or(usual.seed),
            sweep_epsilon: self.sweep_epsilon.clone(),
            sweep_steps: self.sweep_steps.clone(),
            corruptions: self.corruptions,
            checks: self.checks.clone().unwrap_or(usual.checks),
            check_images: self.check_images,
            transfer: self.transfer.clone(),
        };
        request.check()?;
        Ok(request)
    }

    /// Refuses what does not go together with `flag`, which goes by what a folder says.
    pub(crate) fn alone(&self, flag: &str, but: &[&str]) -> Result<()> {
        let mut given = Vec::new();
        macro_rules! name {
            ($($field:ident)*) => {$(if self.$field.is_some() { given.push(stringify!($field)); })*};
        }
        name!(model weights_names data image_size images attack norm epsilon restarts batch seed sweep_epsilon sweep_steps checks
              check_images transfer out);
        if self.stratified {
            given.push("stratified");
        }
        if self.corruptions {
            given.push("corruptions");
        }
        if self.subject.is_some() {
            given.push("MODEL");
        }
        given.retain(|name| !but.contains(name));
        if given.is_empty() {
            return Ok(());
        }
        let flagged = |name: &str| match name {
            "MODEL" => name.to_string(),
            name => format!("--{}", name.replace('_', "-")),
        };
        let given: Vec<String> = given.into_iter().map(flagged).collect();
        let why = "the folder says how it was evaluated: leave these out";
        Err(Error::argument(flag, format!("with {}", given.join(", ")), why))
    }
}
