//! The table of final results.

use super::{Accuracy, grouped};
use std::fmt::Write;

/// Accuracy under one attack; robust accuracy counts clean mistakes as broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The attack line: the attack with everything that decides its strength, and the number of images.
    pub attack: String,
    /// What was measured.
    pub accuracy: Accuracy,
}

fn cells(row: &Row) -> [String; 4] {
    let (low, high) = row.accuracy.interval();
    [
        row.attack.clone(),
        row.accuracy.to_string(),
        format!("{:.2} to {:.2} %", 100.0 * low, 100.0 * high),
        format!("{} of {}", grouped(row.accuracy.correct), grouped(row.accuracy.total)),
    ]
}

const HEAD: [&str; 4] = ["attack", "accuracy", "95 % interval", "right"];

/// The table for a terminal, one line a row under a heading; ends with a line break.
pub fn text(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(String::from)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let [attack, accuracy, interval, right] = [0, 1, 2, 3].map(width);
    let mut table = String::new();
    for (i, line) in lines.iter().enumerate() {
        let [a, b, c, d] = line;
        // Writing to a string cannot fail.
        let _ = writeln!(table, "  {a:<attack$}   {b:>accuracy$}   {c:>interval$}   {d:>right$}");
        if i == 0 {
            let _ = writeln!(table, "  {}", "─".repeat(attack + accuracy + interval + right + 9));
        }
    }
    table
}

/// The table in Markdown, for a model's card.
pub fn markdown(rows: &[Row]) -> String {
    let mut table = format!("| {} |\n|---|---:|---:|---:|\n", HEAD.join(" | "));
    for row in rows {
        let _ = writeln!(table, "| {} |", cells(row).map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            Row { attack: "none (clean)".into(), accuracy: Accuracy::new(1947, 2000) },
            Row { attack: "FGSM, Linf 0.3, 2 000 images".into(), accuracy: Accuracy::new(90, 2000) },
        ];
        let table = text(&rows);
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
        assert!(table.contains("97.35 %   96.55 to 97.97 %   1 947 of 2 000"), "{table}");
        assert!(table.contains("4.50 %"));
        assert!(markdown(&rows).contains("| none (clean) | 97.35 % | 96.55 to 97.97 % | 1 947 of 2 000 |\n"));
    }
}
