//! What a verb prints: one document, or one line per thing that goes on, in the format that was asked for.

pub(crate) mod json;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod text;

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

pub(crate) use style::{ColorChoice, Style};
pub(crate) use table::Table;
pub(crate) use text::escape;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// The same with more columns.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// YAML.
    Yaml,
    /// Names only, one per line.
    Name,
}

/// Where results go and how they look. Data only; whatever is said besides goes to stderr.
pub(crate) struct Out {
    asked: Option<Format>,
    quiet: bool,
    terminal: bool,
    style: Style,
    sink: Box<dyn Write + Send + Sync>,
}

impl Out {
    /// Standard output.
    pub(crate) fn stdout(asked: Option<Format>, quiet: bool, color: ColorChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { asked, quiet, terminal, style: Style::choose(color, terminal), sink: Box::new(io::stdout()) }
    }

    /// Some other writer, plain.
    pub(crate) fn to(sink: impl Write + Send + Sync + 'static, asked: Option<Format>) -> Self {
        Self { asked, quiet: false, terminal: false, style: Style::Plain, sink: Box::new(sink) }
    }

    /// The format; a verb without a default of its own shows a table.
    pub(crate) fn format(&self) -> Format {
        self.asked.unwrap_or(Format::Table)
    }

    /// Whether a format was asked for.
    pub(crate) fn asked(&self) -> Option<Format> {
        self.asked
    }

    /// Whether nothing but the exit code is wanted of verbs that change or ask.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether a script reads: errors are told in JSON too.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.format(), Format::Json | Format::Jsonl)
    }

    /// Whether a person reads right now.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows the result of a verb: one document if it is about `one` thing, else a list. `names` are the lines of
    /// `-o name`, `text` is what people read; it must have escaped whatever came from a plugin.
    pub(crate) fn show<T: Serialize>(
        &mut self,
        items: &[T],
        one: bool,
        names: impl FnOnce() -> Vec<String>,
        text: impl FnOnce(Style, bool) -> String,
    ) -> io::Result<()> {
        let rendered = match (self.format(), items) {
            (Format::Table, _) => text(self.style, false),
            (Format::Wide, _) => text(self.style, true),
            (Format::Name, _) => lines(names()),
            (Format::Jsonl, _) => items.iter().map(json::line).collect::<io::Result<String>>()?,
            (Format::Json, [item]) if one => json::document(item)?,
            (Format::Json, _) => json::document(items)?,
            (Format::Yaml, [item]) if one => json::yaml(item)?,
            (Format::Yaml, _) => json::yaml(items)?,
        };
        self.bytes(rendered.as_bytes())
    }

    /// Shows the result of a verb that changed one thing, or several: their names for people, nothing if quiet.
    pub(crate) fn changed<T: Serialize>(&mut self, items: &[T], one: bool, names: &[String]) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        self.show(items, one, || names.to_vec(), |_, _| lines(names.iter().map(String::as_str)))
    }

    /// Shows one thing of many that go on: a line.
    pub(crate) fn item<T: Serialize>(
        &mut self,
        format: Format,
        item: &T,
        name: impl FnOnce() -> String,
        text: impl FnOnce(Style) -> String,
    ) -> io::Result<()> {
        let rendered = match format {
            Format::Table | Format::Wide => text(self.style) + "\n",
            Format::Name => lines([name()]),
            Format::Json | Format::Jsonl => json::line(item)?,
            Format::Yaml => format!("---\n{}", json::yaml(item)?),
        };
        self.bytes(rendered.as_bytes())
    }

    /// Writes bytes as they are, at once.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)?;
        self.sink.flush()
    }

    /// Writes the bytes of a plugin: as they are, but on a terminal, if they would not print, as hex.
    pub(crate) fn payload(&mut self, bytes: &[u8], raw: bool) -> io::Result<()> {
        if !self.terminal || raw {
            return self.bytes(bytes);
        }
        if !text::prints(bytes) {
            return self.bytes(text::hex_dump(bytes).as_bytes());
        }
        self.bytes(bytes)?;
        if bytes.last().is_some_and(|last| *last != b'\n') && io::stderr().is_terminal() {
            // The prompt begins on a line of its own, and stdout holds nothing but the reply.
            io::stderr().write_all(b"\n")?;
        }
        Ok(())
    }
}

/// One line per name, escaped.
fn lines<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    names.into_iter().map(|name| escape(name.as_ref()) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(format: Format, items: &[&str], one: bool) -> String {
        let shared = Shared::default();
        let mut out = Out::to(shared.clone(), Some(format));
        let names = items.iter().map(ToString::to_string).collect::<Vec<_>>();
        out.show(items, one, || names, |_, wide| format!("wide {wide}\n")).unwrap();
        let bytes = shared.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_thing_is_one_document_and_several_are_a_list() {
        for (format, one, many) in [
            (Format::Table, "wide false\n", "wide false\n"),
            (Format::Wide, "wide true\n", "wide true\n"),
            (Format::Json, "\"a\"\n", "[\n  \"a\",\n  \"b\"\n]\n"),
            (Format::Jsonl, "\"a\"\n", "\"a\"\n\"b\"\n"),
            (Format::Yaml, "a\n", "- a\n- b\n"),
            (Format::Name, "a\n", "a\nb\n"),
        ] {
            assert_eq!(shown(format, &["a"], true), one, "{format:?}");
            assert_eq!(shown(format, &["a", "b"], false), many, "{format:?}");
        }
        assert_eq!(shown(Format::Json, &[], false), "[]\n");
        assert_eq!(shown(Format::Json, &["a"], false), "[\n  \"a\"\n]\n");
    }
}
