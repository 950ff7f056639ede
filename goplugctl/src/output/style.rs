//! Colour: only for people, only when wanted.

use goplug_pconf_schema::admin::State;

/// What `--color` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Text only.
    Plain,
    /// With colours.
    Color,
}

/// A meaning that a colour carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Nothing special.
    None,
    /// As it should be.
    Good,
    /// Under way, or worth a look.
    Notice,
    /// Not as it should be.
    Bad,
    /// Less important.
    Faint,
}

impl Style {
    /// The style for a stream that is, or is not, a terminal.
    pub(crate) fn choose(choice: ColorChoice, terminal: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        match choice {
            ColorChoice::Always => Self::Color,
            ColorChoice::Auto if terminal && set("NO_COLOR").is_none() && !dumb => Self::Color,
            ColorChoice::Auto | ColorChoice::Never => Self::Plain,
        }
    }

    /// `text` in the colour of `paint`.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match (self, paint) {
            (Self::Plain, _) | (_, Paint::None) => return text.to_owned(),
            (_, Paint::Good) => "32",
            (_, Paint::Notice) => "33",
            (_, Paint::Bad) => "31",
            (_, Paint::Faint) => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// The colour of a state.
pub(crate) fn of_state(state: State) -> Paint {
    match state {
        State::Loaded => Paint::Good,
        State::Discovered | State::Stopped => Paint::None,
        State::Starting | State::Draining | State::Backoff => Paint::Notice,
        State::Failed | State::Denied | State::Invalid => Paint::Bad,
        State::Disabled | State::Gone => Paint::Faint,
    }
}
