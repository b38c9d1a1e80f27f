//! The help of every verb, as it is: flags are API.

use crate::harness::Home;
use insta::assert_snapshot;

fn help(verb: &[&str]) -> String {
    let ran = Home::new().run(&[verb, &["--help"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    // These are the same everywhere, and shown once.
    let cut = ran
        .stdout
        .find("\nGlobal options:")
        .unwrap_or(ran.stdout.len());
    let text = ran.stdout[..cut].to_owned();
    match text.find("\nConsent and safety:") {
        Some(consent) if verb != ["up"] => {
            format!("{}\n(consent and safety as for `up`)", &text[..consent])
        }
        _ => text,
    }
}

#[test]
fn the_overview() {
    assert_snapshot!(Home::new().run(&["--help"]).stdout, @r"
    Multi-cloud standby stacks from one YAML spec: build, clone, replicate, fail over by DNS

    Usage: hafog [OPTIONS] <COMMAND>

    Commands:
      init         Write a commented spec to start from
      check        Find the mistakes in the spec, without asking anybody anything
      build        Make the images of every site
      up           Bring up the primary site
      clone        Make a standby at another site
      deploy       Put new images on running servers, standby first
      heal         Make servers anew that do not do their work, and bring database nodes back
      scale        Bring the number of servers to what the spec says: more, or fewer
      replicate    Set up, watch, compare and copy the databases of a standby
      sync         Copy files from the primary site now, and compare them
      status       Show the stack on one screen
      preflight    Say whether the standby could take over now, with evidence
      failover     Move to the standby now; says what it may lose
      switchover   Move to the standby as planned; loses nothing
      commit       Make the last move final: roles are sealed, TTLs restored
      rollback     Take the last move back while it is provisional
      failback     Rejoin the old primary, then move back to it; loses nothing
      resume       Go on with an interrupted run
      abort        Take an interrupted run back
      dns          Show the names, move their TTLs, serve zones
      lock         Show who may change the stack now, or free that right
      show         Print the spec, the stack, facts, or a run's plan, journal or report
      image        List images, look into one, and remove old ones
      role         On an application server: say the role of its site, if its databases agree
      destroy      Remove sites and everything that was made for them
      explain      Say what a refusal or a check of preflight means
      schema       Print the JSON Schema of the spec
      completions  Print a shell's completions
      demo         Play the whole story on this machine
      local        Pull plugs of the local cloud: a lab helper
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Global options:
      -f, --file <PATH>   The spec [env: HAFOG_SPEC] [default: hafog.yaml]
          --json          Print the result as JSON
          --events        Print the journal as it is written, one JSON line an event
          --color <WHEN>  When to colour [default: auto]
          --no-color      The same as --color never
      -q, --quiet         Print the result and nothing else

    Exit codes:
      0  done, or nothing to do       6  out of sync, or unknown
      1  error, nothing changed       7  consent is needed
      2  changes are pending         64  wrong command line
      3  refused, nothing changed    65  wrong spec
      4  partly done: hafog resume   69  something cannot be reached
      5  somebody holds the lease   130  interrupted
    ");
}

#[test]
fn making() {
    assert_snapshot!(help(&["init"]), @r"
    Write a commented spec to start from

    Usage: hafog init [OPTIONS] [FILE]

    Arguments:
      [FILE]
              Where to write it; what --file says if nothing is said

    Options:
          --template <NAME>
              What to start from

              Possible values:
              - static: a folder of files behind a balancer
              - lemp:   nginx and PHP with a database
              - rails:  Ruby on Rails with PostgreSQL
              - django: Django with PostgreSQL
              - node:   a Node server with PostgreSQL
              
              [default: static]

          --name <STACK>
              What to call the stack; the name of the folder if nothing is said

      -h, --help
              Print help (see a summary with '-h')
    ");
    assert_snapshot!(help(&["check"]), @r"
    Find the mistakes in the spec, without asking anybody anything

    Usage: hafog check [OPTIONS]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["build"]), @r"
    Make the images of every site

    Usage: hafog build [OPTIONS] [SITE]...

    Arguments:
      [SITE]...  Sites to build on; all of them if none is named

    Options:
          --upgrade          Take the versions of packages that there are now, and write them to
                             hafog.lock
          --keep-on-failure  Leave the machine of an image that cannot be made as it is, to look at it
      -h, --help             Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["up"]), @r"
    Bring up the primary site

    Usage: hafog up [OPTIONS]

    Options:
      -h, --help  Print help

    Consent and safety:
      -n, --dry-run               Show the plan and change nothing
          --detailed-exitcode     With --dry-run: exit with 2 when there is something to do
      -y, --yes                   Agree to whatever the plan is
          --plan <DIGEST>         Agree to this plan and to no other
          --accept <NAME>         Go on in spite of this refusal; may be repeated
          --reason <TEXT>         Why, for the journal
          --lock-timeout <TIME>   How long to wait for a lease that somebody else holds [default: 0s]
          --parallelism <NUMBER>  How many steps may run at the same time [default: 10]
    ");
    assert_snapshot!(help(&["clone"]), @r"
    Make a standby at another site

    Usage: hafog clone [OPTIONS] [SITE]

    Arguments:
      [SITE]  Where to; may be left out if there is only one other site

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["deploy"]), @r"
    Put new images on running servers, standby first

    Usage: hafog deploy [OPTIONS]

    Options:
          --batch <NUMBER>  How many servers of a group change at the same time; one always stays in
                            rotation [default: 1]
      -h, --help            Print help

    (consent and safety as for `up`)
    ");
}

#[test]
fn moving() {
    assert_snapshot!(help(&["failover"]), @r"
    Move to the standby now; says what it may lose

    Usage: hafog failover [OPTIONS] [SITE|NODE]

    Arguments:
      [SITE|NODE]  Where to: a standby, or another database node of the primary site; a standby that is
                   the only one may be left out

    Options:
          --planned             Lose nothing: the same as `hafog switchover`
          --assume-down <SITE>  Ask nothing of this site: neither its cloud nor its servers; may be
                                repeated
      -h, --help                Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["switchover"]), @r"
    Move to the standby as planned; loses nothing

    Usage: hafog switchover [OPTIONS] [SITE|NODE]

    Arguments:
      [SITE|NODE]  Where to: a standby, or another database node of the primary site; a standby that is
                   the only one may be left out

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["commit"]), @r"
    Make the last move final: roles are sealed, TTLs restored

    Usage: hafog commit [OPTIONS]

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["rollback"]), @r"
    Take the last move back while it is provisional

    Usage: hafog rollback [OPTIONS]

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["failback"]), @r"
    Rejoin the old primary, then move back to it; loses nothing

    Usage: hafog failback [OPTIONS] [SITE]

    Arguments:
      [SITE]  The site to go back to; may be left out if only one was left behind

    Options:
          --rejoin-only  Stop when the site is a standby again
      -h, --help         Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["resume"]), @r"
    Go on with an interrupted run

    Usage: hafog resume [OPTIONS]

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["abort"]), @r"
    Take an interrupted run back

    Usage: hafog abort [OPTIONS]

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["destroy"]), @r"
    Remove sites and everything that was made for them

    Usage: hafog destroy [OPTIONS] [SITE]...

    Arguments:
      [SITE]...  Sites to remove; everything if none is named

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
}

#[test]
fn databases_and_names() {
    assert_snapshot!(help(&["replicate"]), @r"
    Set up, watch, compare and copy the databases of a standby

    Usage: hafog replicate [OPTIONS] <COMMAND>

    Commands:
      setup   Make the databases of a standby follow the primary
      status  Show every node's role, lag and stream
      verify  Compare every replica with its primary, row by row, at one position
      reseed  Copy the databases of a standby anew
      help    Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["replicate", "setup"]), @r"
    Make the databases of a standby follow the primary

    Usage: hafog replicate setup [OPTIONS] [SITE]

    Arguments:
      [SITE]  The standby; may be left out if there is only one other site

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["replicate", "status"]), @r"
    Show every node's role, lag and stream

    Usage: hafog replicate status [OPTIONS]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["replicate", "verify"]), @r"
    Compare every replica with its primary, row by row, at one position

    Usage: hafog replicate verify [OPTIONS] [DATABASE]

    Arguments:
      [DATABASE]  Only this database

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["replicate", "reseed"]), @r"
    Copy the databases of a standby anew

    Usage: hafog replicate reseed [OPTIONS] [SITE]

    Arguments:
      [SITE]  The standby; may be left out if there is only one other site

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["dns"]), @r"
    Show the names, move their TTLs, serve zones

    Usage: hafog dns [OPTIONS] <COMMAND>

    Commands:
      show     Show what is published, and what the DNS hosts serve
      lower    Lower the TTLs ahead of a planned move
      restore  Bring the normal TTLs back
      clock    Show the instant after which no honest cache can hold an old answer
      serve    Serve zones: the name server that moves at once
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["dns", "show"]), @r"
    Show what is published, and what the DNS hosts serve

    Usage: hafog dns show [OPTIONS]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["dns", "lower"]), @r"
    Lower the TTLs ahead of a planned move

    Usage: hafog dns lower [OPTIONS]

    Options:
          --for <TIME>  For how long; `hafog status` complains when it is over [default: 24h]
          --wait        Wait until the old TTLs have run out
      -h, --help        Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["dns", "restore"]), @r"
    Bring the normal TTLs back

    Usage: hafog dns restore [OPTIONS]

    Options:
      -h, --help  Print help

    (consent and safety as for `up`)
    ");
    assert_snapshot!(help(&["dns", "clock"]), @r"
    Show the instant after which no honest cache can hold an old answer

    Usage: hafog dns clock [OPTIONS]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["dns", "serve"]), @r"
    Serve zones: the name server that moves at once

    Usage: hafog dns serve [OPTIONS] --folder <FOLDER> --listen <ADDRESS:PORT>

    Options:
          --folder <FOLDER>        Where the zones are kept; one server a folder
          --listen <ADDRESS:PORT>  Where to listen, UDP and TCP; may be repeated
      -h, --help                   Print help
    ");
}

#[test]
fn looking() {
    assert_snapshot!(help(&["status"]), @r"
    Show the stack on one screen

    Usage: hafog status [OPTIONS]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["role"]), @r"
    On an application server: say the role of its site, if its databases agree

    Usage: hafog role [OPTIONS]

    Options:
          --is <ROLE>  Succeed if the site has this role; exit code 1 if it has the other one, 69 if
                       nobody knows [possible values: primary, standby]
      -h, --help       Print help
    ");
    assert_snapshot!(help(&["preflight"]), @r"
    Say whether the standby could take over now, with evidence

    Usage: hafog preflight [OPTIONS] [SITE]

    Arguments:
      [SITE]  The site to check; may be left out if there is only one other site

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["lock"]), @r"
    Show who may change the stack now, or free that right

    Usage: hafog lock [OPTIONS] <COMMAND>

    Commands:
      status   Show who holds the lease
      release  Free the lease of a holder that is gone; a holder that lives stops before its next step
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["lock", "status"]), @r"
    Show who holds the lease

    Usage: hafog lock status [OPTIONS]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["lock", "release"]), @r"
    Free the lease of a holder that is gone; a holder that lives stops before its next step

    Usage: hafog lock release [OPTIONS] --epoch <NUMBER>

    Options:
          --epoch <NUMBER>  The epoch that `hafog lock status` shows, so that nobody else's lease is
                            freed
      -h, --help            Print help
    ");
    assert_snapshot!(help(&["show"]), @r"
    Print the spec, the stack, facts, or a run's plan, journal or report

    Usage: hafog show [OPTIONS] <COMMAND>

    Commands:
      spec     What was written, as hafog understands it
      stack    The spec with every default filled and every reference resolved
      facts    What is true now, with when it was seen
      plan     The plan of a run
      journal  What was done, event by event
      report   Steps, times and outcome of a run
      help     Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["show", "journal"]), @r"
    What was done, event by event

    Usage: hafog show journal [OPTIONS] [RUN]

    Arguments:
      [RUN]  A run; the newest if none is named

    Options:
          --list  List the runs that have a journal
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["show", "report"]), @r"
    Steps, times and outcome of a run

    Usage: hafog show report [OPTIONS] [RUN]

    Arguments:
      [RUN]  A run; the newest if none is named

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["image"]), @r"
    List images, look into one, and remove old ones

    Usage: hafog image [OPTIONS] <COMMAND>

    Commands:
      list    List the images of every site
      show    Say where an image is, who runs it, and what is in it
      revoke  Let nothing be started from an image any more
      prune   Remove images that no recipe makes now and no server runs
      help    Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["image", "list"]), @r"
    List the images of every site

    Usage: hafog image list [OPTIONS]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["image", "show"]), @r"
    Say where an image is, who runs it, and what is in it

    Usage: hafog image show [OPTIONS] <IMAGE>

    Arguments:
      <IMAGE>  An image, or a recipe: the image that it makes now

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["explain"]), @r"
    Say what a refusal or a check of preflight means

    Usage: hafog explain [OPTIONS] [NAME]

    Arguments:
      [NAME]  A refusal, or a check of `hafog preflight`; all of them if none is named

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["schema"]), @r"
    Print the JSON Schema of the spec

    Usage: hafog schema [OPTIONS]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["completions"]), @r"
    Print a shell's completions

    Usage: hafog completions [OPTIONS] <SHELL>

    Arguments:
      <SHELL>  For which shell [possible values: bash, elvish, fish, powershell, zsh]

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["local"]), @r"
    Pull plugs of the local cloud: a lab helper

    Usage: hafog local [OPTIONS] <COMMAND>

    Commands:
      power  Switch a site or a server of the local cloud on or off, abruptly; a lab helper
      help   Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help
    ");
    assert_snapshot!(help(&["local", "power"]), @r"
    Switch a site or a server of the local cloud on or off, abruptly; a lab helper

    Usage: hafog local power [OPTIONS] <SITE|SERVER> <TO>

    Arguments:
      <SITE|SERVER>
              A site, or one server

      <TO>
              Possible values:
              - on
              - off:    As if the cable were pulled
              - freeze: Everything stops and nothing is closed: a machine that hangs
              - thaw

    Options:
      -h, --help
              Print help (see a summary with '-h')
    ");
}
