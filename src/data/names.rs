//! Names of classes: those that are known, those that come with the data, and how many classes there are.

use super::{list, stream::Stream};
use crate::{Error, Result};
use std::path::Path;

/// Files beside the data that name a class a line, in order.
pub(super) const FILES: [&str; 3] = ["classes.txt", "batches.meta.txt", "fine_label_names.txt"];

/// Most classes taken; ImageNet-21k has 21 841.
pub(super) const MOST_CLASSES: usize = 1 << 16;

const CIFAR10: &str = "airplane automobile bird cat deer dog frog horse ship truck";

const CIFAR100: &str = "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus \
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup \
    dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion \
    lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear \
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew \
    skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger \
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm";

const FASHION: &str = "T-shirt trouser pullover dress coat sandal shirt sneaker bag boot";

/// German traffic signs, in the numbering of the benchmark (Stallkamp et al. 2012, "Man vs. computer").
const GTSRB: &str = "20_km/h 30_km/h 50_km/h 60_km/h 70_km/h 80_km/h end_of_80 100_km/h 120_km/h no_passing \
    no_passing_trucks crossing_ahead priority_road give_way stop no_vehicles no_trucks no_entry danger left_curve \
    right_curve double_curve bumps slippery road_narrows roadworks signals pedestrians children bicycles snow animals \
    end_of_limits right_ahead left_ahead ahead ahead_or_right ahead_or_left keep_right keep_left roundabout \
    end_of_no_passing end_no_passing_trucks";

/// The names of the classes of the data set `name`, where it is one that people know.
pub(super) fn known(name: &str, classes: usize) -> Option<Vec<String>> {
    let name = name.to_lowercase();
    let names = match classes {
        10 if name.contains("cifar") => CIFAR10,
        10 if name.contains("fashion") => FASHION,
        43 if name.contains("gtsrb") || name.contains("traffic") => GTSRB,
        100 if name.contains("cifar") => CIFAR100,
        _ => return None,
    };
    Some(names.split_whitespace().map(|name| name.replace('_', " ")).collect())
}

/// The names in one of [`FILES`] in `folder`, where there is one.
///
/// # Errors
/// As [`parse`], and where it cannot be read.
pub(super) fn given(folder: &Path) -> Result<Option<Vec<String>>> {
    let Some(path) = FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file()) else {
        return Ok(None);
    };
    let text = Stream::open(&path)?.take(1 << 24)?;
    parse(&text, &path).map(Some)
}

/// The names in the text of a file: a class a line, empty lines left out.
///
/// # Errors
/// [`Error::File`] where it is no text, names a class twice, or names none or too many.
pub(super) fn parse(text: &[u8], path: &Path) -> Result<Vec<String>> {
    let text = std::str::from_utf8(text).map_err(|_| {
        Error::file(path, "is not a text in UTF-8, but a name of a class a line was expected")
    })?;
    let names: Vec<String> =
        text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect();
    let mut sorted = names.clone();
    sorted.sort();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::file(
            path,
            format!("names the class `{}` twice: give each class one line", twice[0]),
        ));
    }
    match names.len() {
        2..=MOST_CLASSES => Ok(names),
        count => Err(Error::file(path, format!("names {count} classes; 2 to {MOST_CLASSES} are taken"))),
    }
}

/// The names of the classes of the data set `name` with these labels of its training and its test part, with the files
/// they came from: those `given`, or those known, or numbers.
///
/// # Errors
/// [`Error::File`] where a label is out of range. How many classes there are the training labels say, if none is left
/// out below the largest; a gap means that a label is damaged or that counting does not start at 0.
pub(super) fn of(
    name: &str,
    labels: [(&[u32], &Path); 2],
    given: Option<Vec<String>>,
) -> Result<Vec<String>> {
    let [(train, path), _] = labels;
    if let Some(names) = given {
        for (part, path) in labels {
            if let Some(at) = part.iter().position(|&label| label as usize >= names.len()) {
                return Err(Error::file(
                    path,
                    format!(
                        "label {} (example {at}) is out of range: the classes have {} names, so labels are 0 to {}. \
                         The file is damaged, or the names belong to other data",
                        part[at],
                        names.len(),
                        names.len() - 1
                    ),
                ));
            }
        }
        return Ok(names);
    }
    let largest = train.iter().copied().max().unwrap_or(0) as usize;
    let at = |label: usize| train.iter().position(|&have| have as usize == label).unwrap_or(0);
    if largest >= MOST_CLASSES {
        let why = format!(
            "label {largest} (image {}) is out of range: at most {MOST_CLASSES} classes are taken",
            at(largest)
        );
        return Err(Error::file(path, why));
    }
    let mut seen = vec![false; largest + 1];
    train.iter().for_each(|&label| seen[label as usize] = true);
    if let Some(absent) = seen.iter().position(|&seen| !seen) {
        return Err(Error::file(
            path,
            format!(
                "label {largest} (image {}) is out of range: labels have to be 0 to classes - 1 without a gap, but no \
                 image is of class {absent}. The file is damaged, or its labels have to be renumbered from 0, or the \
                 names of all classes have to be beside it, one a line, as {}",
                at(largest),
                list(&FILES[..1])
            ),
        ));
    }
    if largest == 0 {
        return Err(Error::file(path, "all images are of class 0: at least two classes are needed"));
    }
    let [_, (test, path)] = labels;
    if let Some(at) = test.iter().position(|&label| label as usize > largest) {
        return Err(Error::file(
            path,
            format!(
                "label {} (image {at}) is out of range: the training images have the classes 0 to {largest}",
                test[at]
            ),
        ));
    }
    Ok(known(name, largest + 1).unwrap_or_else(|| (0..=largest).map(|class| class.to_string()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names() {
        let of = |name, classes, at: usize| known(name, classes).unwrap()[at].clone();
        for (name, classes) in [("cifar10", 10), ("cifar100", 100), ("fashion-mnist", 10), ("gtsrb", 43)] {
            let names = known(name, classes).unwrap();
            assert_eq!(names.len(), classes);
            let text = names.join("\n");
            assert_eq!(parse(text.as_bytes(), Path::new("names")).unwrap(), names);
        }
        assert_eq!((of("cifar10", 10, 9), of("cifar100", 100, 99)), ("truck".into(), "worm".into()));
        assert_eq!((of("gtsrb", 43, 14), of("GTSRB-small", 43, 17)), ("stop".into(), "no entry".into()));
        assert!(known("gtsrb", 42).is_none() && known("mnist", 10).is_none());
    }
}
