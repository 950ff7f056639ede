//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

/// The GoPlug daemon: finds plugins in directories and offers them over HTTP on a Unix socket.
///
/// Runs in the foreground and logs to stderr. SIGHUP reads the configuration again, SIGTERM and SIGINT drain and leave;
/// plugins that started themselves stay as they are. Each flag outranks its environment variable, and that the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(name = "goplugd", version, max_term_width = 100)]
pub struct Args {
    /// Configuration file, TOML [environment: GOPLUG_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// A plugin directory; may be given several times, the first one wins [environment: GOPLUG_PLUGIN_DIRS, separated by `:`]
    #[arg(long = "plugin-dir", value_name = "DIR")]
    pub plugin_dirs: Vec<PathBuf>,

    /// Whether directories are watched and plugins loaded as they appear [environment: GOPLUG_AUTO_DISCOVER; default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub auto_discover: Option<bool>,

    /// Socket of the API [environment: GOPLUG_SOCKET; default: $XDG_RUNTIME_DIR/goplug/goplugd.sock, else /run/goplug/goplugd.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// State folder; one daemon per folder [environment: GOPLUG_STATE_DIR; default: the folder of the socket]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Extension of the plugins' files [environment: GOPLUG_EXTENSION; default: .pconf]
    #[arg(long, value_name = ".EXT")]
    pub extension: Option<String>,

    /// Whether a plugin that starts itself may run only the program that it ran first, or that was approved since [environment: GOPLUG_PIN_EXECUTABLES; default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub pin_executables: Option<bool>,

    /// What is logged: error, warn, info, debug, trace [environment: GOPLUG_LOG; default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_discover_is_a_flag_with_an_optional_value() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).map(|args| args.auto_discover);
        assert_eq!(parse("goplugd --log=debug").unwrap(), None);
        assert_eq!(parse("goplugd --auto-discover").unwrap(), Some(true));
        assert_eq!(parse("goplugd --auto-discover=false").unwrap(), Some(false));
        assert!(parse("goplugd --auto-discover=maybe").is_err());
        assert!(parse("goplugd --http 127.0.0.1:1").is_err());
    }
}
