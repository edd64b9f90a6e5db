//! What a data set is once it is loaded: labelled examples of one size.

use super::Limits;
use crate::{Error, Result};
use sha2::{Digest, Sha256};

/// What is classified: images, or vectors of features.
#[derive(Clone, Debug, PartialEq)]
pub enum Examples {
    /// Pixels \[N, H, W, C\], 0 to 255, which is 1 on the device. An attacker may change all of them, within 0 to 1.
    Images(Vec<u8>),
    /// Features \[N, F\], as they are on the device, and what an attacker may do to each.
    Features(Vec<f32>, Limits),
}

/// Labelled examples of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Short name, such as "mnist".
    pub name: String,
    /// What is classified.
    pub examples: Examples,
    /// The class of each example, 0 to `classes - 1`.
    pub labels: Vec<u32>,
    /// Height, width and channels of an image; \[1, 1, F\] for vectors of F features.
    pub image: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Name of each class.
    pub class_names: Vec<String>,
    /// Where the examples come from, for people.
    pub source: String,
    /// SHA-256, in hexadecimal, of everything a result depends on: extents, pixels or features with their limits, and
    /// labels.
    pub sha256: String,
}

/// What examples are held out by, see [`Dataset::split_validation`]; by default one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Neighbours of one class that are held out together, at least 1.
    pub size: usize,
    /// Neighbours of one class, on either side of what is held out, that are not trained on either.
    pub gap: usize,
}

impl Default for Groups {
    fn default() -> Groups {
        Groups { size: 1, gap: 0 }
    }
}

/// A data set's training part and the test part that only final figures may see.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Images to train on and to hold out validation images from.
    pub train: Dataset,
    /// Images for the final figures.
    pub test: Dataset,
}

impl Dataset {
    /// The data set of these images \[N, H, W, C\] and labels.
    ///
    /// # Errors
    /// [`Error::Argument`] where the counts do not match, there is no image, an extent is zero, or a label is not
    /// below the number of names.
    pub fn new(
        name: impl Into<String>,
        source: impl Into<String>,
        image: [usize; 3],
        images: Vec<u8>,
        labels: Vec<u32>,
        class_names: Vec<String>,
    ) -> Result<Dataset> {
        let examples = Examples::Images(images);
        Dataset::of(name.into(), source.into(), image, examples, labels, class_names)
    }

    /// The data set of these vectors of features \[N, F\] and labels; what an attacker may do to them is in `limits`.
    ///
    /// # Errors
    /// [`Error::Argument`] as for [`Dataset::new`], and where a feature is not a number or outside its bounds.
    pub fn of_features(
        name: impl Into<String>,
        source: impl Into<String>,
        values: Vec<f32>,
        limits: Limits,
        labels: Vec<u32>,
        class_names: Vec<String>,
    ) -> Result<Dataset> {
        let image = [1, 1, limits.len()];
        let examples = Examples::Features(values, limits);
        Dataset::of(name.into(), source.into(), image, examples, labels, class_names)
    }

    fn of(
        name: String,
        source: String,
        image: [usize; 3],
        examples: Examples,
        labels: Vec<u32>,
        class_names: Vec<String>,
    ) -> Result<Dataset> {
        let classes = class_names.len();
        let numbers = match &examples {
            Examples::Images(pixels) => pixels.len(),
            Examples::Features(values, _) => values.len(),
        };
        check(&name, image, numbers, &labels, &class_names)?;
        if let Examples::Features(values, limits) = &examples
            && let Some(why) = limits.refusal(values)
        {
            return Err(Error::argument("data set", &name, why));
        }
        let sha256 = digest(image, &labels, classes, &examples);
        Ok(Dataset { name, examples, labels, image, classes, class_names, source, sha256 })
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Numbers an example is made of: H * W * C.
    pub fn image_len(&self) -> usize {
        self.image.iter().product()
    }

    /// Pixels of image `i`, \[H, W, C\].
    ///
    /// # Panics
    /// Where `i` is not below [`Dataset::len`], or the examples are no images.
    pub fn image(&self, i: usize) -> &[u8] {
        match &self.examples {
            Examples::Images(images) => &images[i * self.image_len()..][..self.image_len()],
            Examples::Features(..) => panic!("`{}` holds vectors of features, no images", self.name),
        }
    }

    /// What its examples are called: "images", or "feature vectors".
    pub fn kind(&self) -> &'static str {
        match self.examples {
            Examples::Images(_) => "images",
            Examples::Features(..) => "feature vectors",
        }
    }

    /// Hold out `count` examples for validation: the indices that stay for training and those that are held out, each
    /// ascending.
    ///
    /// Stratified: every class gives its share, rounded so that the shares add up. Which images of a class is a
    /// function of `seed` alone.
    ///
    /// Where neighbours show one object (frames of a film, photographs of one sign), twins of what is held out at random
    /// stay in training, and validation measures memory. [`Groups`] keep them apart: the examples of a class are cut into
    /// groups of neighbours, of which whole ones are held out, as many as come closest to `count` (at least one), and their neighbours
    /// are left out altogether.
    ///
    /// # Errors
    /// [`Error::Argument`] where no image would be left to train on, or, with groups larger than 1 or a gap, none of some
    /// class.
    pub fn split_validation(&self, count: usize, groups: Groups, seed: u64) -> Result<(Vec<u32>, Vec<u32>)> {
        if count >= self.len() {
            return Err(Error::argument(
                "validation images",
                count,
                format!(
                    "{} has {} {}, and some have to be left to train on",
                    self.name,
                    self.len(),
                    self.kind()
                ),
            ));
        }
        let all: Vec<u32> = (0..self.len() as u32).collect();
        let wanted = match count {
            0 => 0,
            _ => ((count + groups.size / 2) / groups.size).max(1),
        };
        let (mut left, chosen) = self.choose_groups(&all, wanted, groups.size, seed);
        if groups.gap > 0 {
            left = self.without_neighbours(&chosen, groups.gap);
        }
        if groups != Groups::default()
            && let Some(class) = (0..self.classes as u32).find(|class| {
                self.labels.contains(class) && left.iter().all(|&i| self.labels[i as usize] != *class)
            })
        {
            let why = format!(
                "in groups of {} with a gap of {}, nothing of class {class} ({}) is left to train on: hold out fewer \
                 examples, or in smaller groups",
                groups.size, groups.gap, self.class_names[class as usize]
            );
            return Err(Error::argument("validation images", count, why));
        }
        Ok((left, chosen))
    }

    /// All but `chosen` and those fewer than `gap` + 1 places from one of them among the examples of their class,
    /// ascending.
    fn without_neighbours(&self, chosen: &[u32], gap: usize) -> Vec<u32> {
        let mut is_chosen = vec![false; self.len()];
        chosen.iter().for_each(|&i| is_chosen[i as usize] = true);
        let all: Vec<u32> = (0..self.len() as u32).collect();
        let mut left = Vec::with_capacity(self.len());
        for class in self.by_class(&all) {
            let near = |at: usize| {
                class[at.saturating_sub(gap)..class.len().min((at + 1).saturating_add(gap))]
                    .iter()
                    .any(|&i| is_chosen[i as usize])
            };
            left.extend((0..class.len()).filter(|&at| !near(at)).map(|at| class[at]));
        }
        left.sort_unstable();
        left
    }

    /// The examples `among`, class by class, in their order.
    fn by_class(&self, among: &[u32]) -> Vec<Vec<u32>> {
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); self.classes];
        for &i in among {
            members[self.labels[i as usize] as usize].push(i);
        }
        members
    }

    /// Of the examples `among`, those that are left and `count` that are chosen (all, where there are no more), each
    /// ascending; stratified and by `seed` alone, as [`Dataset::split_validation`].
    pub fn choose(&self, among: &[u32], count: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
        self.choose_groups(among, count, 1, seed)
    }

    /// As [`Dataset::choose`], but what is chosen, and counted, are groups of `size` neighbours of one class.
    fn choose_groups(&self, among: &[u32], count: usize, size: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
        let members = self.by_class(among);
        let mut members: Vec<Vec<&[u32]>> =
            members.iter().map(|class| class.chunks(size).collect()).collect();
        let all: usize = members.iter().map(Vec::len).sum();
        let count = count.min(all);
        // Largest remainder: whole shares first, then one more to those who lost most by rounding down.
        let all = all.max(1) as u128;
        let share = |class: &Vec<&[u32]>| class.len() as u128 * count as u128;
        let mut quotas: Vec<usize> = members.iter().map(|class| (share(class) / all) as usize).collect();
        let mut by_loss: Vec<usize> = (0..self.classes).collect();
        by_loss.sort_by_key(|&class| std::cmp::Reverse(share(&members[class]) % all));
        let missing = count - quotas.iter().sum::<usize>();
        for &class in &by_loss[..missing] {
            quotas[class] += 1;
        }

        let (mut left, mut chosen) = (Vec::with_capacity(among.len()), Vec::new());
        for (class, quota) in members.iter_mut().zip(quotas) {
            class.sort_by_key(|group| split_mix(seed ^ split_mix(group[0].into())));
            class[..quota].iter().for_each(|group| chosen.extend_from_slice(group));
            class[quota..].iter().for_each(|group| left.extend_from_slice(group));
        }
        left.sort_unstable();
        chosen.sort_unstable();
        (left, chosen)
    }

    /// The examples with these indices, in this order.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is none, or an index is out of range.
    pub fn subset(&self, indices: &[u32]) -> Result<Dataset> {
        if let Some(&i) = indices.iter().find(|&&i| i as usize >= self.len()) {
            return Err(Error::argument(
                "example",
                i,
                format!("{} has {} {}", self.name, self.len(), self.kind()),
            ));
        }
        let labels = indices.iter().map(|&i| self.labels[i as usize]).collect();
        let source = format!("{} of the {} {} of {}", indices.len(), self.len(), self.kind(), self.source);
        let names = self.class_names.clone();
        match &self.examples {
            Examples::Images(images) => {
                Dataset::new(&self.name, source, self.image, self.rows(images, indices), labels, names)
            }
            Examples::Features(values, limits) => {
                let values = self.rows(values, indices);
                Dataset::of_features(&self.name, source, values, limits.clone(), labels, names)
            }
        }
    }

    fn rows<T: Copy>(&self, table: &[T], indices: &[u32]) -> Vec<T> {
        let row = self.image_len();
        indices.iter().flat_map(|&i| &table[i as usize * row..][..row]).copied().collect()
    }
}

/// Checks what every data set has to be.
fn check(name: &str, image: [usize; 3], numbers: usize, labels: &[u32], classes: &[String]) -> Result<()> {
    let refuse = |why: String| Err(Error::argument("data set", name, why));
    let wanted = image.iter().try_fold(labels.len(), |total, &extent| total.checked_mul(extent));
    if wanted != Some(numbers) {
        return refuse(format!("{numbers} numbers do not make {} examples of {image:?}", labels.len()));
    }
    if numbers == 0 {
        return refuse("holds no image".into());
    }
    if let Some(at) = labels.iter().position(|&label| label as usize >= classes.len()) {
        return refuse(format!(
            "label {} of image {at} is not one of the {} classes",
            labels[at],
            classes.len()
        ));
    }
    Ok(())
}

/// SHA-256, in hexadecimal, of extents, what `contents` adds, and labels.
fn digest(image: [usize; 3], labels: &[u32], classes: usize, examples: &Examples) -> String {
    let mut hash = Sha256::new();
    for extent in [labels.len(), image[0], image[1], image[2], classes] {
        hash.update((extent as u64).to_le_bytes());
    }
    match examples {
        Examples::Images(pixels) => hash.update(pixels),
        Examples::Features(values, limits) => {
            hash.update(b"features");
            for part in [values, &limits.least, &limits.most] {
                part.iter().for_each(|value| hash.update(value.to_le_bytes()));
            }
            limits.changes.iter().for_each(|change| hash.update([*change as u8]));
        }
    }
    labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014): a
/// bijection that scatters neighbouring numbers.
fn split_mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
