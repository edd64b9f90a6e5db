//! Examples held out in groups, so that no twin of theirs is trained on.

use crate::assert_says;
use adamant::data::{Dataset, Groups};
use proptest::prelude::*;

/// Images of one pixel, with these labels.
fn dataset(labels: Vec<u32>) -> Dataset {
    let names = (0..=labels.iter().max().copied().unwrap_or(0)).map(|class| format!("class {class}"));
    Dataset::new("tracks", "a test", [1, 1, 1], vec![0; labels.len()], labels, names.collect()).unwrap()
}

/// Tracks of ten images one after the other: 12 of class 0, 6 of class 1, 2 of class 2.
fn tracks() -> Dataset {
    dataset([(0, 120), (1, 60), (2, 20)].into_iter().flat_map(|(class, n)| vec![class; n]).collect())
}

#[test]
fn whole_groups_are_held_out_each_class_its_share() {
    let data = tracks();
    let groups = Groups { size: 10, gap: 0 };
    let (rest, held_out) = data.split_validation(100, groups, 0).unwrap();
    assert_eq!((rest.len(), held_out.len()), (100, 100));
    for track in 0..20u32 {
        let held = held_out.iter().filter(|&&i| i / 10 == track).count();
        assert!(held == 0 || held == 10, "track {track} is torn: {held} of its 10 are held out");
    }
    let of = |class| held_out.iter().filter(|&&i| data.labels[i as usize] == class).count();
    assert_eq!([of(0), of(1), of(2)], [60, 30, 10]);
    assert_eq!(data.split_validation(100, groups, 0).unwrap().1, held_out, "the seed decides");
    assert_ne!(data.split_validation(100, groups, 1).unwrap().1, held_out);
    // The nearest number of whole groups; one where anything is asked for.
    for (asked, held) in [(0, 0), (1, 10), (14, 10), (15, 20), (104, 100)] {
        assert_eq!(data.split_validation(asked, groups, 0).unwrap().1.len(), held, "{asked}");
    }
}

#[test]
fn the_neighbours_of_what_is_held_out_are_left_out() {
    let data = tracks();
    let (rest, held_out) = data.split_validation(40, Groups { size: 20, gap: 5 }, 0).unwrap();
    assert_eq!(held_out.len(), 40);
    let near = |i: u32| {
        held_out.iter().any(|&j| data.labels[i as usize] == data.labels[j as usize] && i.abs_diff(j) <= 5)
    };
    let wanted: Vec<u32> = (0..200).filter(|&i| !near(i)).collect();
    assert_eq!(rest, wanted);
    // Neighbours are those of the class, wherever they lie in the file.
    let data = dataset((0..200).map(|i| i % 2).collect());
    let (rest, held_out) = data.split_validation(20, Groups { size: 10, gap: 1 }, 3).unwrap();
    let places =
        |class: u32| -> Vec<u32> { held_out.iter().filter(|&&i| i % 2 == class).map(|&i| i / 2).collect() };
    for class in [0, 1] {
        let held = places(class);
        assert_eq!(held.len(), 10);
        assert!(held.windows(2).all(|pair| pair[1] == pair[0] + 1), "{held:?} are no neighbours");
        let missing: Vec<u32> = (0..100).filter(|place| !rest.contains(&(2 * place + class))).collect();
        let wanted: Vec<u32> =
            (0..100).filter(|&place: &u32| held.iter().any(|&h| h.abs_diff(place) <= 1)).collect();
        assert_eq!(missing, wanted, "class {class}");
    }
}

#[test]
fn a_class_of_which_nothing_would_be_left_is_told_of() {
    let data = tracks();
    let error = data.split_validation(150, Groups { size: 20, gap: 0 }, 0).unwrap_err().to_string();
    assert_says(&error, &["validation images", "nothing of class 2 (class 2) is left", "smaller groups"]);
    let error = data.split_validation(60, Groups { size: 20, gap: 120 }, 0).unwrap_err().to_string();
    assert_says(&error, &["a gap of 120", "nothing of class 0"]);
    for groups in [Groups { size: usize::MAX, gap: 0 }, Groups { size: 10, gap: usize::MAX }] {
        let error = data.split_validation(60, groups, 0).unwrap_err().to_string();
        assert_says(&error, &["is left to train on"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Groups of one are what is held out one by one; whatever is asked for ends in disjoint parts or an error.
    #[test]
    fn parts_are_disjoint_and_groups_are_neighbours(
        labels in prop::collection::vec(0u32..4, 1..80),
        count in 0usize..90,
        size in 1usize..20,
        gap in 0usize..10,
        seed in any::<u64>(),
    ) {
        let data = dataset(labels);
        let Ok((rest, held_out)) = data.split_validation(count, Groups { size, gap }, seed) else {
            return Ok(());
        };
        prop_assert!(rest.is_sorted() && held_out.is_sorted());
        prop_assert!(rest.iter().all(|i| held_out.binary_search(i).is_err()));
        prop_assert!(gap > 0 || rest.len() + held_out.len() == data.len());
        prop_assert!(!rest.is_empty());
        for class in 0..data.classes as u32 {
            let members = (0..data.len() as u32).filter(|&i| data.labels[i as usize] == class);
            let members: Vec<bool> = members.map(|i| held_out.contains(&i)).collect();
            for group in members.chunks(size) {
                prop_assert!(group.iter().all(|held| *held == group[0]), "{group:?}");
            }
        }
    }
}
