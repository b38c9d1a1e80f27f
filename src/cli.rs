//! The command line as types, and one match. What a verb does is in `cmd/`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cmd::{self, Call, Ended};
use crate::error::Fault;
use crate::ui::print::{Colour, Ui, lost};
use crate::{cloud, demo, exit};

/// Multi-cloud standby stacks from one YAML spec: build, clone, replicate, fail over by DNS.
#[derive(Parser, Debug)]
#[command(name = "hafog", version, max_term_width = 100)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or nothing to do       6  out of sync, or unknown
  1  error, nothing changed       7  consent is needed
  2  changes are pending         64  wrong command line
  3  refused, nothing changed    65  wrong spec
  4  partly done: hafog resume   69  something cannot be reached
  5  somebody holds the lease   130  interrupted";

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The spec
    #[arg(short, long, global = true, env = "HAFOG_SPEC", hide_env_values = true)]
    #[arg(default_value = crate::spec::FILE, value_name = "PATH")]
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Print the journal as it is written, one JSON line an event
    #[arg(long, global = true, conflicts_with = "json")]
    events: bool,
    /// When to colour
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    color: Colour,
    /// The same as --color never
    #[arg(long, global = true)]
    no_color: bool,
    /// Print the result and nothing else
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Write a commented spec to start from
    Init(cmd::init::Args),
    /// Find the mistakes in the spec, without asking anybody anything
    Check(cmd::check::Args),
    /// Make the images of every site
    Build(cmd::build::Args),
    /// Bring up the primary site
    Up(cmd::up::Args),
    /// Make a standby at another site
    Clone(cmd::clone::Args),
    /// Put new images on running servers, standby first
    Deploy(cmd::deploy::Args),
    /// Make servers anew that do not do their work, and bring database nodes back
    Heal(cmd::heal::Args),
    /// Bring the number of servers to what the spec says: more, or fewer
    Scale(cmd::heal::Args),
    /// Set up, watch, compare and copy the databases of a standby
    #[command(subcommand)]
    Replicate(cmd::replicate::Verb),
    /// Copy files from the primary site now, and compare them
    Sync(cmd::sync::Args),
    /// Show the stack on one screen
    Status(cmd::status::Args),
    /// Say whether the standby could take over now, with evidence
    Preflight(cmd::preflight::Args),
    /// Move to the standby now; says what it may lose
    Failover(cmd::failover::Args),
    /// Move to the standby as planned; loses nothing
    Switchover(cmd::failover::SwitchoverArgs),
    /// Make the last move final: roles are sealed, TTLs restored
    Commit(cmd::commit::Args),
    /// Take the last move back while it is provisional
    Rollback(cmd::rollback::Args),
    /// Rejoin the old primary, then move back to it; loses nothing
    Failback(cmd::failback::Args),
    /// Go on with an interrupted run
    Resume(cmd::resume::Args),
    /// Take an interrupted run back
    Abort(cmd::resume::Args),
    /// Show the names, move their TTLs, serve zones
    #[command(subcommand)]
    Dns(cmd::dns::Verb),
    /// Show who may change the stack now, or free that right
    #[command(subcommand)]
    Lock(cmd::lock::Verb),
    /// Print the spec, the stack, facts, or a run's plan, journal or report
    #[command(subcommand)]
    Show(cmd::show::Noun),
    /// List images, look into one, and remove old ones
    #[command(subcommand)]
    Image(cmd::image::Verb),
    /// On an application server: say the role of its site, if its databases agree
    Role(cmd::role::Args),
    /// Remove sites and everything that was made for them
    Destroy(cmd::destroy::Args),
    /// Say what a refusal or a check of preflight means
    Explain(cmd::explain::Args),
    /// Print the JSON Schema of the spec
    Schema(cmd::schema::Args),
    /// Print a shell's completions
    Completions(cmd::completions::Args),
    /// Play the whole story on this machine
    Demo(demo::Args),
    /// Pull plugs of the local cloud: a lab helper
    #[command(subcommand)]
    Local(cmd::local::Verb),
    /// Keep a local server's services up
    #[command(hide = true)]
    Supervise { folder: PathBuf },
    /// Keep a database node's heartbeat, write lease and fence
    #[command(hide = true)]
    Agent {
        #[arg(long)]
        config: PathBuf,
    },
    /// Do the jobs of an application server at their times
    #[command(hide = true)]
    Cron { jobs: PathBuf },
    /// Keep files in step, on the servers themselves
    #[command(hide = true, subcommand)]
    Files(cmd::files::Verb),
    /// Keep a state store for others, who come by SSH
    #[command(hide = true)]
    Store {
        folder: PathBuf,
        /// A document that may be known; none is all
        #[arg(long, value_name = "KEY")]
        only: Vec<String>,
    },
    /// Say something to a HAProxy of this machine
    #[command(hide = true)]
    Haproxy { socket: PathBuf, words: String },
    /// The application of the demo
    #[command(hide = true)]
    DemoApp(demo::app::Args),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => usage(&error),
    }
}

/// clap's own exit code for a wrong command line is 2, which means "pending" here.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(if error.use_stderr() {
        exit::USAGE
    } else {
        exit::DONE
    })
}

fn run(cli: Cli) -> ExitCode {
    let Global {
        file,
        json,
        events,
        color,
        no_color,
        quiet,
    } = cli.global;
    let color = if no_color { Colour::Never } else { color };
    let call = Call {
        file,
        ui: Ui::new(color, json, events, quiet),
    };
    // What outlives the command must not hold open what the command was given: a lock file, a pipe of a script.
    if matches!(cli.verb, Verb::Supervise { .. }) || std::env::var_os("HAFOG_DETACH").is_some() {
        cloud::local::supervisor::close_inherited();
    }
    // These choose their own runtime: the supervisor forks before it has threads.
    let ended = match cli.verb {
        Verb::Supervise { folder } => cloud::local::supervisor::run(folder)
            .map(|()| exit::DONE)
            .map_err(Into::into),
        Verb::Demo(args) => return demo::run(&args, json),
        Verb::DemoApp(args) => return demo::app::run(&args),
        verb => in_runtime(&call, verb),
    };
    let ended = match (ended, lost()) {
        (Ok(_), Some(fault)) => Err(fault.into()),
        (ended, _) => ended,
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(faults) => {
            call.ui.faults(&faults.0);
            let kind = faults.0.first().map(Fault::kind);
            ExitCode::from(kind.map_or(exit::ERROR, exit::code))
        }
    }
}

fn in_runtime(call: &Call, verb: Verb) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Fault::new("cannot start the runtime").because(error))?;
    let ended = runtime.block_on(go(call, verb));
    // A thread may still be waiting for an answer at the terminal.
    runtime.shutdown_background();
    ended
}

async fn go(call: &Call, verb: Verb) -> Ended {
    match verb {
        Verb::Init(args) => cmd::init::run(call, &args),
        Verb::Check(args) => cmd::check::run(call, &args),
        Verb::Build(args) => cmd::build::run(call, &args).await,
        Verb::Up(args) => cmd::up::run(call, &args).await,
        Verb::Clone(args) => cmd::clone::run(call, &args).await,
        Verb::Deploy(args) => cmd::deploy::run(call, &args).await,
        Verb::Heal(args) => cmd::heal::run(call, &args).await,
        Verb::Scale(args) => cmd::heal::scale(call, &args).await,
        Verb::Replicate(verb) => cmd::replicate::run(call, &verb).await,
        Verb::Sync(args) => cmd::sync::run(call, &args).await,
        Verb::Status(args) => cmd::status::run(call, &args).await,
        Verb::Preflight(args) => cmd::preflight::run(call, &args).await,
        Verb::Failover(args) => cmd::failover::run(call, &args).await,
        Verb::Switchover(args) => cmd::failover::switchover(call, &args).await,
        Verb::Commit(args) => cmd::commit::run(call, &args).await,
        Verb::Rollback(args) => cmd::rollback::run(call, &args).await,
        Verb::Failback(args) => cmd::failback::run(call, &args).await,
        Verb::Resume(args) => cmd::resume::run(call, &args).await,
        Verb::Abort(args) => cmd::resume::abort(call, &args).await,
        Verb::Dns(verb) => cmd::dns::run(call, &verb).await,
        Verb::Lock(verb) => cmd::lock::run(call, &verb).await,
        Verb::Show(noun) => cmd::show::run(call, &noun).await,
        Verb::Image(verb) => cmd::image::run(call, &verb).await,
        Verb::Role(args) => cmd::role::run(call, &args).await,
        Verb::Destroy(args) => cmd::destroy::run(call, &args).await,
        Verb::Explain(args) => cmd::explain::run(call, &args),
        Verb::Schema(args) => cmd::schema::run(call, &args),
        Verb::Completions(args) => cmd::completions::run(call, &args, Cli::command()),
        Verb::Local(verb) => cmd::local::run(call, &verb).await,
        Verb::Agent { config } => cmd::agent::run(call, &config).await,
        Verb::Cron { jobs } => cmd::cron::run(call, &jobs).await,
        Verb::Files(verb) => cmd::files::run(call, verb).await,
        Verb::Store { folder, only } => cmd::store::run(&folder, &only).await,
        Verb::Haproxy { socket, words } => cmd::haproxy::run(call, &socket, &words).await,
        Verb::Supervise { .. } | Verb::Demo(_) | Verb::DemoApp(_) => {
            unreachable!("not in a runtime")
        }
    }
}
