//! How many images of one class an attacker turns into another class of his choice: the stop sign that is read as a
//! speed limit.

use super::gallery::Example;
use super::results::{self, line};
use super::{Accuracy, Gallery, grouped};
use crate::attack::{Adversarial, Attack, Classifier, Evaluation, Pgd, Targeted};
use crate::data::{Dataset, Examples};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::tensor::Store;
use crate::train::EVALUATION_BATCH;
use serde_json::json;
use std::path::Path;
use std::str::FromStr;

/// Examples the picture shows.
const GALLERY: usize = 10;

/// Which class is to be turned into which: `14:2,5` is class 14 into 2 or 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Class of the images that are attacked.
    pub from: u32,
    /// Classes that any of which is what the attacker wants; not empty, each once, without `from`.
    pub into: Vec<u32>,
}

impl FromStr for Turn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Turn> {
        let refuse = |why: &str| Error::argument("turn", format!("`{text}`"), why);
        let form = "write the class of the images, a colon, and the classes to turn them into, as 14:2,5";
        let class = |text: &str| text.trim().parse::<u32>().map_err(|_| refuse(form));
        let (from, into) = text.split_once(':').ok_or_else(|| refuse(form))?;
        let from = class(from)?;
        let into = into.split(',').map(class).collect::<Result<Vec<u32>>>()?;
        let repeated = into.iter().enumerate().any(|(i, class)| into[..i].contains(class));
        if into.contains(&from) || repeated {
            return Err(refuse("each class may be named once"));
        }
        Ok(Turn { from, into })
    }
}

impl Turn {
    /// Checks it against the classes there are.
    ///
    /// # Errors
    /// [`Error::Argument`] for a class that the data set does not have, or of which it has no image.
    pub fn check(&self, data: &Dataset) -> Result<()> {
        let refuse = |class: u32, why: String| Err(Error::argument("turn", format!("class {class}"), why));
        for &class in self.into.iter().chain([&self.from]) {
            if class as usize >= data.classes {
                return refuse(class, format!("`{}` has the classes 0 to {}", data.name, data.classes - 1));
            }
        }
        match data.labels.contains(&self.from) {
            true => Ok(()),
            false => refuse(self.from, format!("no test image of `{}` is of this class", data.name)),
        }
    }
}

/// What became of the images of one class.
pub struct Turned {
    turn: Turn,
    /// How the attack is told of: with steps, restarts and number of images.
    attack: String,
    images: u64,
    /// Images read as a wanted class without an attack.
    clean: u64,
    /// Images read as a wanted class without an attack or after one towards it.
    turned: u64,
    examples: Vec<Adversarial>,
}

impl Turned {
    /// Attacks the images of a class towards each wanted class in turn: `pgd` with `restarts`, on the network of `on`,
    /// whose weights are in `store`, and the data set whose tensors there begin with `test`.
    /// `progress` hears what is being done, how much of it is done and how much there is.
    ///
    /// # Errors
    /// As [`Turn::check`], and of the device.
    pub fn measure(
        store: &Store,
        on: Classifier<'_>,
        data: &Dataset,
        turn: &Turn,
        (pgd, restarts, seed): (&Pgd, u32, u64),
        mut progress: impl FnMut(&str, usize, usize),
    ) -> Result<Turned> {
        turn.check(data)?;
        let images: Vec<u32> =
            (0..data.len() as u32).filter(|&i| data.labels[i as usize] == turn.from).collect();
        let labels = vec![turn.from; images.len()];
        let mut turned = vec![false; images.len()];
        let mut clean = 0;
        let mut examples: Vec<Adversarial> = Vec::new();
        for &class in &turn.into {
            let attack = Targeted { pgd: pgd.clone(), class };
            let batch = EVALUATION_BATCH.min(images.len());
            let judge = Evaluation::compile(store, &attack, on, "test", batch)?;
            let name = format!("{} towards {}", attack.name(), data.class_names[class as usize]);
            let verdicts =
                judge.run(&images, &labels, restarts, seed, |done, of| progress(&name, done, of))?;
            clean = verdicts.clean.iter().filter(|class| turn.into.contains(class)).count() as u64;
            // The picture shows as many towards each class, and each image once, images that it takes an attack to turn.
            let room = (GALLERY - examples.len()).div_ceil(turn.into.len() - place(&turn.into, class));
            let wanted = |i: &usize| !verdicts.robust[*i] && verdicts.correct[*i];
            let unseen = |i: &usize| examples.iter().all(|shown| shown.example != images[*i]);
            let shown: Vec<u32> =
                (0..images.len()).filter(|i| wanted(i) && unseen(i)).take(room).map(|i| images[i]).collect();
            examples.extend(judge.images(&shown, seed)?);
            for (turned, robust) in turned.iter_mut().zip(&verdicts.robust) {
                *turned |= !robust;
            }
        }
        if examples.is_empty() {
            // Nothing was turned: what the attacks on the first images came to.
            let attack = Targeted { pgd: pgd.clone(), class: turn.into[0] };
            let judge = Evaluation::compile(store, &attack, on, "test", GALLERY.min(images.len()))?;
            examples = judge.images(&images[..GALLERY.min(images.len())], seed)?;
        }
        let attack = format!("targeted {}", line(pgd, restarts, images.len(), data.kind()));
        let turned = turned.into_iter().filter(|&turned| turned).count() as u64;
        Ok(Turned { turn: turn.clone(), attack, images: images.len() as u64, clean, turned, examples })
    }

    /// Images read as a wanted class, without an attack or after one, of all.
    pub fn share(&self) -> Accuracy {
        Accuracy::new(self.turned, self.images)
    }

    /// What was found, in a sentence.
    pub fn text(&self, data: &Dataset) -> String {
        let name = |class: u32| match data.class_names[class as usize].as_str() {
            name if *name == class.to_string() => name.to_string(),
            name => format!("{class} ({name})"),
        };
        let into: Vec<String> = self.turn.into.iter().map(|&class| name(class)).collect();
        let (low, high) = self.share().interval();
        format!(
            "of {} test {} of class {}, read as {}: {} without an attack, {} ({}; 95 % interval {:.2} to {:.2} %) \
             with one, {}",
            grouped(self.images),
            data.kind(),
            name(self.turn.from),
            into.join(" or "),
            self.clean,
            self.turned,
            self.share(),
            100.0 * low,
            100.0 * high,
            self.attack
        )
    }

    /// Writes `turned.json` and, where the examples are images, `turned.png` into a run folder.
    ///
    /// # Errors
    /// Of drawing or of the disk.
    pub fn write(&self, folder: &Path, title: &str, data: &Dataset, pgd: &Pgd) -> Result<()> {
        let (low, high) = self.share().interval();
        let record = json!({
            "model": title,
            "data": data.name,
            "from": self.turn.from,
            "into": self.turn.into,
            "attack": self.attack,
            "examples": self.images,
            "clean": self.clean,
            "turned": self.turned,
            "share": self.share().fraction(),
            "interval_95": [low, high],
        });
        write_atomically(folder.join("turned.json"), format!("{record:#}\n").as_bytes())?;
        if matches!(data.examples, Examples::Features(..)) {
            return Ok(());
        }
        let examples: Vec<Example> =
            self.examples.iter().map(|found| results::example(found, self.turn.from)).collect();
        let into: Vec<&str> =
            self.turn.into.iter().map(|&class| data.class_names[class as usize].as_str()).collect();
        let from = &data.class_names[self.turn.from as usize];
        let title =
            format!("{title}: {from} read as {}, {} of {}", into.join(" or "), self.turned, self.images);
        Gallery {
            title: &title,
            attack: &self.attack,
            image: data.image,
            class_names: &data.class_names,
            scale: results::scale(&pgd.threat),
            examples: &examples,
        }
        .write(folder.join("turned.png"))
    }
}

/// Where `class` stands among `classes`.
fn place(classes: &[u32], class: u32) -> usize {
    classes.iter().position(|&one| one == class).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_read_as_they_are_written() {
        let turn: Turn = "14:2,5".parse().unwrap();
        assert_eq!(turn, Turn { from: 14, into: vec![2, 5] });
        for wrong in ["", "14", "14:", ":2", "14:2,", "14:x", "-1:2", "14:14", "14:2,2", "14:2:5"] {
            let error = wrong.parse::<Turn>().unwrap_err().to_string();
            assert!(error.contains("turn"), "{wrong}: {error}");
        }
    }
}
