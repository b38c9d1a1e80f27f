//! An empty database: its files, roles and tables, made in single-user mode before anybody can connect.

use std::time::Duration;

use super::aside::{self, Own};
use super::config::{self, Door, Paths, name_quoted};
use super::connect::{self, OURS};
use super::server;
use crate::db::{Node, Reach};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::shell::Command;

const INITDB_LIMIT: Duration = Duration::from_secs(120);

/// In [`OURS`]. Every statement may run again. In single-user mode a statement ends at `;` and an empty line.
const ROLES: &str = include_str!("../../../templates/postgres/roles.sql");
/// In the application's database.
const PROBE: &str = include_str!("../../../templates/postgres/probe.sql");

fn text_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The application's role. The password is made into a verifier here; it is never in a statement.
fn application(node: &Node, password: Option<&str>) -> String {
    let user = name_quoted(&node.database.user);
    let text = text_quoted(&node.database.user);
    let verifier = match password {
        Some(password) => text_quoted(&postgres_protocol::password::scram_sha_256(
            password.as_bytes(),
        )),
        None => "NULL".to_owned(),
    };
    format!(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {text}) THEN \
         CREATE ROLE {user}; END IF; END $$;\n\n\
         ALTER ROLE {user} LOGIN PASSWORD {verifier};\n\n"
    )
}

fn database(node: &Node) -> String {
    let user = name_quoted(&node.database.user);
    format!("CREATE DATABASE {user} OWNER {user} TEMPLATE template0;\n\n")
}

fn rights(node: &Node) -> String {
    let user = name_quoted(&node.database.user);
    format!(
        "REVOKE ALL ON DATABASE {user} FROM PUBLIC;\n\n\
         GRANT CONNECT ON DATABASE {user} TO hafog_agent, hafog_probe;\n\n"
    )
}

pub(super) async fn create(
    node: &Node,
    password: Option<&str>,
    reach: &Reach,
) -> Result<(), Trouble> {
    if !reach.keys.is_authority() {
        return Err(Trouble::NothingChanged(Fault::new(
            "only the controller can make a database",
        )));
    }
    let bin = server::find_binaries(node, None, reach).await?;
    server::prepare_folders(node, reach).await?;
    config::put_all(node, Door::Open, reach).await?;
    if !server::has_data(node, reach).await.unknown()? {
        make_files(node, password, &bin, reach).await?;
    }
    config::install(node, &bin, reach).await?;
    server::start(node, reach).await?;
    complete(node, password, reach).await
}

/// Everything is made in a folder beside, so that a data folder is complete as soon as it is there.
async fn make_files(
    node: &Node,
    password: Option<&str>,
    bin: &str,
    reach: &Reach,
) -> Result<(), Trouble> {
    let paths = Paths::of(node);
    // What is there is no whole database, and may be what is left of one.
    aside::clear(node, Own::Unknown, reach).await?;
    let initdb = |locale: &str| {
        Command::new([
            format!("{bin}/initdb"),
            format!("--pgdata={}", paths.fresh),
            "--data-checksums".to_owned(),
            format!("--locale={locale}"),
            "--encoding=UTF8".to_owned(),
            "--username=hafog_admin".to_owned(),
            "--auth=reject".to_owned(),
        ])
        .service_user()
        .limit(INITDB_LIMIT)
    };
    if server::run(node, &initdb("C.UTF-8"), reach).await.is_err() {
        server::remove_fresh(node, reach).await?;
        server::run(node, &initdb("C"), reach).await?;
    }
    let first = [
        ROLES,
        &application(node, password),
        &database(node),
        &rights(node),
    ]
    .concat();
    single(node, OURS, first, bin, reach).await?;
    single(node, &node.database.user, PROBE.to_owned(), bin, reach).await?;
    server::rename_fresh(node, reach).await
}

/// `postgres --single` reads statements from its input: nobody can connect meanwhile.
async fn single(
    node: &Node,
    database: &str,
    sql: String,
    bin: &str,
    reach: &Reach,
) -> Result<(), Trouble> {
    let paths = Paths::of(node);
    let path = config::put_sql(node, "first.sql", sql, reach).await?;
    let command = Command::new([
        "sh",
        "-c",
        r#"exec "$1" --single -j -D "$2" -c "config_file=$3" -c exit_on_error=on "$4" < "$5" > /dev/null"#,
        "sh",
        &format!("{bin}/postgres"),
        &paths.fresh,
        &paths.settings(),
        database,
        &path,
    ])
    .service_user()
    .limit(INITDB_LIMIT);
    let ran = server::run(node, &command, reach).await;
    reach.shell.remove(&node.host, &path).await?;
    ran.map(|_| ())
}

/// The same statements again on a node that is open already: what an older hafog did not make, and a new password.
async fn complete(node: &Node, password: Option<&str>, reach: &Reach) -> Result<(), Trouble> {
    let login = |database: &str| {
        let database = database.to_owned();
        async move {
            connect::connect(node, &database, reach)
                .await
                .map_err(|failure| Trouble::Partial(failure.fault))
        }
    };
    let partial = |failure: connect::Failure| Trouble::Partial(failure.fault);
    let session = login(OURS).await?;
    if session
        .one::<bool>("SELECT pg_is_in_recovery()", &[])
        .await
        .map_err(partial)?
    {
        return Ok(());
    }
    session
        .run(&[ROLES, &application(node, password)].concat())
        .await
        .map_err(partial)?;
    let user = &node.database.user;
    let exists = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    if !session
        .one::<bool>(exists, &[user])
        .await
        .map_err(partial)?
    {
        session.run(&database(node)).await.map_err(partial)?;
    }
    session.run(&rights(node)).await.map_err(partial)?;
    login(user).await?.run(PROBE).await.map_err(partial)
}
