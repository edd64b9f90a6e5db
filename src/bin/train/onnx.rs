//! `--export-onnx`: the network with its best weights as an ONNX file.

use super::common::say;
use adamant::nn::{Collapsed, Params, to_onnx};
use adamant::train::{Position, Recipe, checkpoint, method};
use adamant::weights::Weights;
use adamant::{Error, Result, files};
use std::path::Path;

/// Writes the network of a recipe for images of `image` (rows, columns, channels) and so many classes; one with dummy
/// classes as the classifier that it amounts to.
pub(crate) fn write(
    file: &Path,
    recipe: &Recipe,
    (image, classes): ([usize; 3], usize),
    weights: &Weights,
) -> Result<()> {
    let network = recipe.network(image, classes)?;
    let dummies = method(recipe)?.has_dummies();
    let bytes = match dummies {
        true => to_onnx(&Collapsed(network.as_ref()), weights),
        false => to_onnx(network.as_ref(), weights),
    }?;
    files::write_atomically(file, &bytes)?;
    say!("onnx      {} ({} bytes), for pixels in [0, 1]", file.display(), bytes.len());
    Ok(())
}

/// Writes the network of a run that is over, from the weights in its folder.
pub(crate) fn write_finished(
    file: &Path,
    folder: &Path,
    recipe: &Recipe,
    (image, classes): ([usize; 3], usize),
) -> Result<()> {
    let network = recipe.network(image, classes)?;
    let params = Params::of(network.as_ref())?;
    let weights = checkpoint::load_weights(folder, network.as_ref(), &params)?;
    write(file, recipe, (image, classes), &weights)
}

/// Whether a run at this position has nothing left to train.
pub(crate) fn is_over(position: &Position, recipe: &Recipe) -> bool {
    position.epoch >= recipe.epochs || position.stopped.is_some()
}

/// Refuses a file that would not be found by its name again.
pub(crate) fn check(file: &Path) -> Result<()> {
    match file.extension() {
        Some(extension) if extension == "onnx" => Ok(()),
        _ => Err(Error::argument("export-onnx", file.display(), "must end in .onnx, as in network.onnx")),
    }
}
