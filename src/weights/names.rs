//! What the names of a weight file mean: a table of patterns, built in and extended by the user.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// The table that is built in.
const BUILT_IN: &str = include_str!("names.toml");
/// Most `*` of a pattern: with more, matching would take long on names made for that.
const MOST_STARS: usize = 2;
/// Longest name that is looked up in the table.
const MOST_NAME: usize = 512;
/// Most forms of a name that are tried.
const MOST_FORMS: usize = 24;

/// A pattern and what it means.
#[derive(Clone, Debug)]
struct Rule {
    from: Vec<String>,
    /// Empty: left out.
    to: Vec<Vec<String>>,
}

/// What the names of a weight file mean: the built-in table (`src/weights/names.toml`), and a user's before it.
///
/// A name becomes a parameter's by as few steps of the table as possible; the user's own step, if one fits, is made first
/// and in any case.
#[derive(Clone, Debug)]
pub struct Names {
    own: Vec<Rule>,
    built_in: Vec<Rule>,
    open: String,
}

/// A table as it stands in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Where the state dict is in a file that holds more.
    #[serde(default)]
    open: String,
    #[serde(default)]
    names: BTreeMap<String, Meanings>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Meanings {
    One(String),
    Several(Vec<String>),
}

/// What a name of a file turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The parameter of this name.
    Parameter(String),
    /// Nothing that weights need.
    LeftOut,
    /// Nothing known.
    Unknown,
}

impl Default for Names {
    fn default() -> Names {
        // The table is checked by a test; were it damaged, no name would mean anything but itself.
        let built_in = rules(BUILT_IN).map(|(rules, _)| rules).unwrap_or_default();
        Names { own: Vec::new(), built_in, open: String::new() }
    }
}

impl Names {
    /// The built-in table, and the one in this file (TOML) before it:
    ///
    /// ```toml
    /// open = "ema.state_dict"      # where the state dict is, if not where it usually is
    /// [names]
    /// "encoder.*" = "*"            # `*` is any text
    /// "head.proj.*" = "fc.*"
    /// "aux.*" = ""                 # left out
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] when it is no such table.
    pub fn read(path: &Path) -> Result<Names> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::io(path, "could not read the table of names", e))?;
        let (own, open) = rules(&text).map_err(|why| Error::file(path, why))?;
        Ok(Names { own, open, ..Names::default() })
    }

    /// Keys that lead to the state dict in a file that holds more, with dots between; empty where it usually is.
    pub fn open(&self) -> &str {
        &self.open
    }

    /// What `name` means for a network that has the parameters that `wanted` says.
    pub(super) fn meaning(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Meaning {
        if name.len() > MOST_NAME {
            return Meaning::Unknown;
        }
        let mut forms: Vec<String> = Vec::new();
        match self.own.iter().find_map(|rule| apply(rule, name)) {
            Some(own) if own.is_empty() => return Meaning::LeftOut,
            Some(own) => forms.extend(own),
            None => forms.push(name.to_string()),
        }
        let mut seen: HashSet<String> = forms.iter().cloned().collect();
        let mut at = 0;
        while let Some(form) = forms.get(at).cloned() {
            at += 1;
            if wanted(&form) {
                return Meaning::Parameter(form);
            }
            for rule in &self.built_in {
                match apply(rule, &form) {
                    Some(none) if none.is_empty() => return Meaning::LeftOut,
                    Some(next) => {
                        let new = next.into_iter().filter(|form| seen.insert(form.clone()));
                        forms.extend(new);
                    }
                    None => {}
                }
            }
            if forms.len() > MOST_FORMS {
                forms.truncate(MOST_FORMS);
            }
        }
        Meaning::Unknown
    }
}

/// The rules of a table, the most particular first (those with the most text that is no `*`), and what is to be opened.
fn rules(text: &str) -> std::result::Result<(Vec<Rule>, String), String> {
    let table: Table = toml::from_str(text).map_err(|error| {
        format!("is no table of names ({error}); a line is \"encoder.*\" = \"*\" under [names]")
    })?;
    let split = |pattern: &str| pattern.split('*').map(String::from).collect::<Vec<_>>();
    let mut rules = Vec::with_capacity(table.names.len());
    for (pattern, meanings) in table.names {
        let meanings = match meanings {
            Meanings::One(one) => vec![one],
            Meanings::Several(several) => several,
        };
        let from = split(&pattern);
        if pattern.is_empty() || from.len() - 1 > MOST_STARS {
            return Err(format!("`{pattern}`: a pattern has some text, and at most {MOST_STARS} `*`"));
        }
        let to: Vec<Vec<String>> =
            meanings.iter().filter(|meaning| !meaning.is_empty()).map(|meaning| split(meaning)).collect();
        if let Some(at) = to.iter().position(|to| to.len() > from.len()) {
            return Err(format!("`{pattern}` = `{}`: there are more `*` behind than in front", meanings[at]));
        }
        rules.push(Rule { from, to });
    }
    let length = |rule: &Rule| rule.from.iter().map(String::len).sum::<usize>();
    rules.sort_by_key(|rule| std::cmp::Reverse(length(rule)));
    Ok((rules, table.open))
}

/// What a rule makes of a name that its pattern fits; nothing where it leaves it out.
fn apply(rule: &Rule, name: &str) -> Option<Vec<String>> {
    let texts = matched(&rule.from, name)?;
    let fill = |to: &Vec<String>| {
        let mut made = String::new();
        for (at, part) in to.iter().enumerate() {
            if at > 0 {
                made.push_str(texts[at - 1]);
            }
            made.push_str(part);
        }
        made
    };
    Some(rule.to.iter().map(fill).collect())
}

/// The texts that stand for the `*` between the parts of a pattern, each as short as possible, where it fits.
fn matched<'a>(parts: &[String], name: &'a str) -> Option<Vec<&'a str>> {
    let (first, rest) = parts.split_first()?;
    let mut left = name.strip_prefix(first.as_str())?;
    let Some((last, between)) = rest.split_last() else { return left.is_empty().then(Vec::new) };
    let mut texts = Vec::with_capacity(rest.len());
    for part in between {
        let at = left.find(part.as_str())?;
        texts.push(&left[..at]);
        left = &left[at + part.len()..];
    }
    texts.push(left.strip_suffix(last.as_str())?);
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(names: &Names, name: &str, wanted: &[&str]) -> Meaning {
        names.meaning(name, |form| wanted.contains(&form))
    }

    fn parameter(name: &str) -> Meaning {
        Meaning::Parameter(name.into())
    }

    #[test]
    fn a_name_becomes_the_networks_by_as_few_steps_as_possible() {
        let names = Names::default();
        assert!(names.built_in.len() > 20);
        for (name, means) in [
            ("conv1.weight", "conv1.weight"),
            ("module.conv1.weight", "conv1.weight"),
            ("module._orig_mod.model.conv1.weight", "conv1.weight"),
            ("1.model.fc.bias", "linear.bias"),
            ("module.normalizer.new_mean", "normalize.mean"),
            ("0.mean", "normalize.mean"),
            ("mu", "normalize.mean"),
            ("module.layer2.0.downsample.0.weight", "layer2.0.shortcut.0.weight"),
        ] {
            let wanted =
                ["conv1.weight", "linear.bias", "normalize.mean", "layer2.0.shortcut.0.weight", "0.weight"];
            assert_eq!(meaning(&names, name, &wanted), parameter(means), "{name}");
        }
        // What a network has is never changed: numbers are names of layers too.
        assert_eq!(meaning(&names, "0.weight", &["0.weight", "weight"]), parameter("0.weight"));
        assert_eq!(meaning(&names, "1.0.weight", &["0.weight"]), parameter("0.weight"));
        for name in ["bn1.num_batches_tracked", "module.attacker.model.conv1.weight", "layer1.total_ops"] {
            assert_eq!(meaning(&names, name, &["conv1.weight"]), Meaning::LeftOut, "{name}");
        }
        assert_eq!(meaning(&names, "ema.conv1.weight", &["conv1.weight"]), Meaning::Unknown);
        assert_eq!(meaning(&names, &"0.".repeat(10_000), &["weight"]), Meaning::Unknown);
    }

    #[test]
    fn a_users_table_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Names::read(&path)
        };
        let names = read(
            "open = 'ema.state'\n[names]\n'enc*.*' = '*.*'\n'enc7.*' = 'seventh.*'\n'aux.*' = ''\n'h.*' = 'fc.*'",
        )
        .unwrap();
        assert_eq!(names.open(), "ema.state");
        assert_eq!(meaning(&names, "enc3.x.weight", &["3.x.weight"]), parameter("3.x.weight"));
        assert_eq!(meaning(&names, "enc7.w", &["seventh.w", "7.w"]), parameter("seventh.w"));
        assert_eq!(meaning(&names, "aux.w", &["aux.w"]), Meaning::LeftOut);
        // Its step is made first, then those of the built-in table.
        assert_eq!(meaning(&names, "h.bias", &["linear.bias"]), parameter("linear.bias"));
        for (text, why) in [
            ("[names]\n'a' = '*'", "more `*` behind"),
            ("[names]\n'*a*b*' = ''", "at most 2"),
            ("[names]\n'' = 'x'", "has some text"),
            ("[names]\n'a' = 3", "is no table of names"),
            ("name = 3", "is no table of names"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("names.toml"), "{error}");
        }
    }
}
