//! What a run leaves for people: numbers with their uncertainty, metrics, progress, pictures.

pub mod accuracy;
mod canvas;
mod chart;
pub mod curves;
pub mod environment;
pub mod evaluation;
pub mod gallery;
pub mod honesty;
pub mod metrics;
pub mod overfitting;
pub mod progress;
pub mod results;
pub mod table;
pub mod turned;

pub use accuracy::Accuracy;
pub use environment::Environment;
pub use gallery::Gallery;
pub use metrics::Metrics;
pub use progress::Progress;
pub use results::Results;
pub use turned::{Turn, Turned};

/// A count with its thousands apart: `10 000`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A small number at three digits, without zeros at its end: `0.125`, `2e-5`, `0`.
fn compact(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e5) {
        let text = format!("{value:.2e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        return format!("{mantissa}e{exponent}");
    }
    let decimals = (2 - value.abs().max(1e-3).log10().floor() as i32).clamp(0, 5) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!(
            [0.0, 0.3, 0.002, 0.00195, 2e-5, 1.25e-4, 12.0, 12345.0, 8.0 / 255.0].map(compact),
            ["0", "0.3", "0.002", "0.00195", "2e-5", "1.25e-4", "12", "12345", "0.0314"]
        );
    }
}
