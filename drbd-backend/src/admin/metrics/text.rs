//! Samples grouped by metric, as the format demands, with labels escaped.

use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Debug, Default)]
pub(super) struct Text {
    metrics: BTreeMap<&'static str, (&'static str, String)>,
}

impl Text {
    /// One more sample of a gauge.
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: u64) {
        let (_, samples) = self.metrics.entry(name).or_insert_with(|| (help, String::new()));
        samples.push_str(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            let mark = if number == 0 { '{' } else { ',' };
            write!(samples, "{mark}{label}=\"{}\"", escaped(value)).expect("a string takes everything");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        writeln!(samples, "{close} {value}").expect("a string takes everything");
    }

    pub(super) fn finish(self) -> String {
        let mut whole = String::new();
        for (name, (help, samples)) in self.metrics {
            write!(whole, "# HELP {name} {help}\n# TYPE {name} gauge\n{samples}").expect("a string takes everything");
        }
        whole
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_metric_stand_together_under_its_help() {
        let mut text = Text::default();
        text.gauge("b", "B.", &[("name", "a\"\\\n")], 1);
        text.gauge("a", "A.", &[], 2);
        text.gauge("b", "B.", &[("name", "x"), ("peer", "y")], 3);
        let expected = "# HELP a A.\n# TYPE a gauge\na 2\n# HELP b B.\n# TYPE b gauge\nb{name=\"a\\\"\\\\\\n\"} 1\nb{name=\"x\",peer=\"y\"} 3\n";
        assert_eq!(text.finish(), expected);
    }
}
