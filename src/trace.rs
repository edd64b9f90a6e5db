//! What host and device did when, for a person to look at: spans of a run in the trace event format, which Perfetto
//! (ui.perfetto.dev) and chrome://tracing open, and the share of the time that the device had work.

use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Something that happened. Times are in seconds since the trace began.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The host was at something.
    Host {
        /// At what.
        name: &'static str,
        /// When it began.
        start: f64,
        /// When it ended.
        end: f64,
    },
    /// A submission was handed to the device.
    Submitted {
        /// Its number.
        submission: u64,
        /// When.
        at: f64,
    },
    /// The host saw that a submission had run: it ended then or before.
    Done {
        /// Its number.
        submission: u64,
        /// When it was seen.
        at: f64,
    },
    /// The device ran a part of a submission, by the device's own clock: in seconds since any moment.
    Device {
        /// The submission's number.
        submission: u64,
        /// The part.
        name: &'static str,
        /// When it began.
        start: f64,
        /// When it ended.
        end: f64,
    },
}

/// A recording of events, in the order in which the host learned of them.
#[derive(Debug)]
pub struct Trace {
    start: Instant,
    events: Mutex<Vec<Event>>,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { start: Instant::now(), events: Mutex::default() }
    }
}

/// The host is at something until this is dropped.
pub struct Span<'a>(Option<(&'a Trace, &'static str, Instant)>);

impl<'a> Span<'a> {
    /// From now on, where there is a trace.
    pub fn new(trace: Option<&'a Trace>, name: &'static str) -> Span<'a> {
        Span(trace.map(|trace| (trace, name, Instant::now())))
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        if let Some((trace, name, start)) = self.0 {
            trace.push(Event::Host { name, start: trace.at(start), end: trace.now() });
        }
    }
}

/// How busy a device was kept, from the first submission of a trace to the end of the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Submissions.
    pub submissions: usize,
    /// That time, in seconds.
    pub seconds: f64,
    /// Share of it during which a submission was handed over and not done: 0 to 1.
    pub queued: f64,
}

impl Trace {
    /// Seconds since the trace began.
    pub fn now(&self) -> f64 {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> f64 {
        moment.saturating_duration_since(self.start).as_secs_f64()
    }

    /// Records something.
    pub fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// What was recorded, in the order in which the host learned of it.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When each submission began to wait and when it was done, by number: by the device's clock where it told, else
    /// as the host saw it. Submissions that were not seen to end are left out.
    fn submissions(events: &[Event], offset: f64) -> Vec<(u64, f64, f64)> {
        let mut all = Vec::new();
        for event in events {
            if let Event::Submitted { submission, at } = event {
                all.push((*submission, *at, f64::INFINITY));
            }
        }
        for event in events {
            let (number, end) = match event {
                Event::Done { submission, at } => (*submission, *at),
                Event::Device { submission, end, .. } => (*submission, *end + offset),
                _ => continue,
            };
            if let Ok(at) = all.binary_search_by_key(&number, |(number, ..)| *number) {
                all[at].2 = match event {
                    Event::Done { .. } => all[at].2.min(end),
                    // Parts come in order: the last one's end is the submission's.
                    _ => end,
                };
            }
        }
        all.retain(|(.., end)| end.is_finite());
        all
    }

    /// What has to be added to the device's clock: with it no submission ends after it was seen to have ended, and
    /// one of them exactly then.
    fn offset(events: &[Event]) -> f64 {
        let mut seen = std::collections::HashMap::new();
        for event in events {
            if let Event::Done { submission, at } = event {
                seen.insert(*submission, *at);
            }
        }
        let mut ends = std::collections::HashMap::new();
        for event in events {
            if let Event::Device { submission, end, .. } = event {
                ends.insert(*submission, *end);
            }
        }
        let offsets = ends.iter().filter_map(|(submission, end)| Some(seen.get(submission)? - end));
        let least = offsets.fold(f64::INFINITY, f64::min);
        if least.is_finite() { least } else { 0.0 }
    }

    /// How busy the device was kept; `None` before a submission was done.
    pub fn summary(&self) -> Option<Summary> {
        let events = self.events();
        let submissions = Trace::submissions(&events, Trace::offset(&events));
        let first = submissions.first()?.1;
        // Submissions run in the order they were handed over in.
        let (mut covered, mut until) = (0.0, first);
        for (_, start, end) in &submissions {
            covered += (end - start.max(until)).max(0.0);
            until = until.max(*end);
        }
        let seconds = (until - first).max(f64::MIN_POSITIVE);
        // Without a gap the pieces may add up to a rounding more than the whole.
        Some(Summary { submissions: submissions.len(), seconds, queued: (covered / seconds).min(1.0) })
    }

    /// The trace as a file in the trace event format: a row for the host, one for what the device ran (by its own
    /// clock, where it has one), and one for the submissions under way.
    pub fn to_json(&self) -> String {
        let events = self.events();
        let offset = Trace::offset(&events);
        let micros = |seconds: f64| (seconds * 1e9).round() / 1e3;
        let row = |tid: u32, name: &str| json!({"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": {"name": name}});
        let mut all: Vec<Value> = vec![
            json!({"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "adamant"}}),
            row(1, "host"),
            row(2, "device"),
        ];
        for event in &events {
            let (tid, name, [start, end], submission) = match event {
                Event::Host { name, start, end } => (1, name, [*start, *end], None),
                Event::Device { submission, name, start, end } => {
                    (2, name, [start + offset, end + offset], Some(submission))
                }
                Event::Submitted { .. } | Event::Done { .. } => continue,
            };
            let mut one = json!({"ph": "X", "pid": 1, "tid": tid, "name": name, "ts": micros(start),
                "dur": micros(end - start)});
            if let Some(submission) = submission {
                one["args"] = json!({"submission": submission});
            }
            all.push(one);
        }
        // Spans that overlap are pairs of asynchronous events, known by a number.
        for (submission, start, end) in Trace::submissions(&events, offset) {
            for (phase, at) in [("b", start), ("e", end)] {
                all.push(json!({"ph": phase, "cat": "queue", "id": submission, "pid": 1, "tid": 3,
                    "name": "submission", "ts": micros(at), "args": {"submission": submission}}));
            }
        }
        json!({"displayTimeUnit": "ms", "traceEvents": all}).to_string()
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { submissions, seconds, queued } = self;
        let share = 100.0 * queued;
        write!(f, "the device had work queued {share:.1} % of {seconds:.1} s ({submissions} submissions)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_time_is_the_union_of_the_submissions() {
        let trace = Trace::default();
        assert_eq!(trace.summary(), None);
        trace.push(Event::Submitted { submission: 7, at: 1.0 });
        trace.push(Event::Submitted { submission: 8, at: 2.0 });
        // The device's clock is 100 s ahead; the second submission was seen to end at once, the first late.
        trace.push(Event::Done { submission: 7, at: 3.5 });
        trace.push(Event::Submitted { submission: 9, at: 5.0 });
        trace.push(Event::Done { submission: 8, at: 4.0 });
        trace.push(Event::Device { submission: 7, name: "a", start: 101.0, end: 102.0 });
        trace.push(Event::Device { submission: 7, name: "b", start: 102.0, end: 103.0 });
        trace.push(Event::Device { submission: 8, name: "a", start: 103.0, end: 104.0 });
        trace.push(Event::Done { submission: 9, at: 6.0 });
        let summary = trace.summary().unwrap();
        assert_eq!((summary.submissions, summary.seconds), (3, 5.0));
        assert!((summary.queued - 4.0 / 5.0).abs() < 1e-12, "{summary}");
        let json: Value = serde_json::from_str(&trace.to_json()).unwrap();
        let events = json["traceEvents"].as_array().unwrap();
        let device: Vec<&Value> = events.iter().filter(|e| e["tid"] == 2 && e["ph"] == "X").collect();
        assert_eq!((device.len(), &device[2]["ts"], &device[2]["dur"]), (3, &json!(3e6), &json!(1e6)));
    }
}
