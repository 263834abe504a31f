//! `sensorium`: the node, and the commands around it.
//!
//! Exit codes: 0 done; 1 it could not run, or went on to fail (the reason is on standard error); 2 wrong usage.

mod check;
mod client;
mod cluster;
mod config;
mod devices;
mod options;
mod shutdown;
mod status;
mod units;
mod wiring;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use config::Settings;
use options::Options;

const EXAMPLES: &str = "\
Examples:
  sensorium                                    a node on this machine; the dashboard is at http://127.0.0.1:4000
  sensorium --data /var/lib/sensorium --keep 5000
  sensorium --http 0.0.0.0:4000 --mqtt 0.0.0.0:1883 --insecure-open      open to the network, knowingly
  sensorium --name b --data ./b --http 127.0.0.1:0 --mqtt 127.0.0.1:0 --peer 127.0.0.1:0 --join 127.0.0.1:4400
                                               a second node on this machine, beside one that has the defaults
  SENSORIUM_NAME=lab-1 sensorium --config sensorium.toml                 option > environment > file > default
  sensorium check --verbose                    would it start? says why not
  sensorium status                             the running node as a table

Every option can be set in the environment (SENSORIUM_ and its name, `-` as `_`) and, by the same name, in the file
given with --config. Logs go to standard error; RUST_LOG=debug says more.";

/// One node: takes what devices measure, keeps the newest of it on disk, shows it live in a browser.
#[derive(Debug, Parser)]
#[command(name = "sensorium", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node (the default).
    Serve(Box<Options>),
    /// Say whether the node would start with these settings: data directory, addresses, disk space.
    Check {
        /// Also list every setting and what was found in order.
        #[arg(long, short)]
        verbose: bool,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Show the cluster that a running node belongs to.
    Status {
        /// The node to ask.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4000")]
        http: String,
        /// The node's answer as it is, instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Print a token for a device, a viewer or an admin (needs --auth-secret).
    Token(TokenArgs),
}

/// Parsed so that scripts fail for the reason that matters and not for their options.
#[derive(Debug, Args)]
struct TokenArgs {
    /// Whom it is for.
    #[arg(value_parser = ["device", "viewer", "admin"])]
    role: String,
    /// Sensor or pattern (`strap-*`) that it is good for.
    #[arg(long, value_name = "ID|PATTERN")]
    sensor: Vec<String>,
    /// Room that it is good for.
    #[arg(long, value_name = "ID")]
    room: Vec<String>,
    /// How long it is good.
    #[arg(long, default_value = "30d")]
    ttl: units::Span,
    /// The secret that the nodes were started with.
    #[arg(long, value_name = "TEXT", env = "SENSORIUM_AUTH_SECRET", hide_env_values = true)]
    auth_secret: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => serve(cli.options),
        Some(Command::Serve(options)) => serve(*options),
        Some(Command::Check { verbose, options }) => check::run(*options, verbose),
        Some(Command::Status { http, json }) => status::run(&http, json),
        Some(Command::Token(args)) => Err(vec![format!(
            "this version has no authentication yet: --auth-secret is not supported, so no {} token can be made",
            args.role
        )]),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reasons) => {
            for reason in reasons {
                eprintln!("sensorium: {reason}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs the node until it is told to stop. The error is every reason why it could not, or what it could not finish.
fn serve(options: Options) -> Result<(), Vec<String>> {
    start_logging();
    let settings = Settings::resolve(options.with_file()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| vec![format!("cannot start threads: {error}")])?;
    let outcome = runtime.block_on(wiring::run(settings)).map_err(|reason| vec![reason]);
    // What still runs is past its deadline: `shutdown` has waited for all that matters.
    runtime.shutdown_background();
    outcome
}

fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
