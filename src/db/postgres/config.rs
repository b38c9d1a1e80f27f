//! The files of a node: where they are, what is in them, and the service that runs it.
//!
//! `<data>/postgres-<database>/main` is the data folder; `conf` beside it holds everything that belongs to this
//! server alone, so that a copy or a rewind of `main` never brings another node's settings.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::try_join_all;
use minijinja::{Environment, UndefinedBehavior, context};

use crate::db::{Certificate, Node, Reach, certificate};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::{DatabaseName, ServerName};
use crate::shell::{File, Host, Service, ServiceChange, ServiceState, StopSignal};

const POSTGRESQL_CONF: &str = include_str!("../../../templates/postgres/postgresql.conf");
const HBA_CONF: &str = include_str!("../../../templates/postgres/pg_hba.conf");
/// Names of the certificates on a node.
const AUTHORITY: &str = "ca";
const SERVER: &str = "server";
const ROLES: [&str; 3] = ["hafog_repl", "hafog_rewind", "hafog_agent"];
/// How long a clean stop may take before it is killed: it writes everything that is in memory.
const STOP_LIMIT: Duration = Duration::from_secs(60);

pub fn service_name(database: &DatabaseName) -> String {
    format!("postgres-{database}")
}

/// The folder with a node's configuration and keys. The agent's are `ca.crt`, `hafog_agent.crt` and `hafog_agent.key`.
pub fn conf_folder(host: &Host, database: &DatabaseName) -> String {
    format!("{}/postgres-{database}/conf", host.dirs.data)
}

/// The replication slot that an upstream keeps for a follower.
pub(super) fn slot_of(server: &ServerName) -> String {
    server.as_str().replace('-', "_")
}

pub(super) fn server_of(slot: &str) -> ServerName {
    ServerName::new(slot.replace('_', "-"))
}

/// Paths of a node.
pub(super) struct Paths {
    pub base: String,
    pub main: String,
    /// A copy that is not complete yet.
    pub fresh: String,
    pub conf: String,
}

impl Paths {
    pub fn of(node: &Node) -> Paths {
        let base = format!("{}/postgres-{}", node.host.dirs.data, node.database.name);
        Paths {
            main: format!("{base}/main"),
            fresh: format!("{base}/main.new"),
            conf: conf_folder(&node.host, &node.database.name),
            base,
        }
    }

    pub fn hba(&self) -> String {
        format!("{}/pg_hba.conf", self.conf)
    }

    pub fn settings(&self) -> String {
        format!("{}/postgresql.conf", self.conf)
    }

    pub fn upstream(&self) -> String {
        format!("{}/upstream.conf", self.conf)
    }

    pub fn confirm(&self) -> String {
        format!("{}/confirm.conf", self.conf)
    }
}

/// Who may log in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// Replication and the controller only.
    Barred,
}

/// A value in single quotes, for `postgresql.conf`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in double quotes, for `pg_hba.conf` and SQL.
pub(super) fn name_quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A value of a connection string (libpq's "keyword/value" form).
fn value_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn render(template: &str, values: minijinja::Value) -> Result<String, Fault> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("quoted", |text: &str| quoted(text));
    let text = environment
        .render_str(template, values)
        .map(|text| text + "\n");
    text.map_err(|error| Fault::new("cannot write the configuration of PostgreSQL").because(error))
}

fn settings(node: &Node) -> Result<String, Fault> {
    let values = context! {
        address => node.host.address.to_string(),
        port => node.database.port,
        keep_log_mb => (node.database.keep_log.0 >> 20).max(1),
        conf => Paths::of(node).conf,
    };
    render(POSTGRESQL_CONF, values)
}

pub(super) fn hba(node: &Node, door: Door) -> Result<String, Fault> {
    let mut peers: BTreeSet<IpAddr> = node.peers.iter().copied().collect();
    peers.insert(node.host.address);
    peers.insert(std::net::Ipv4Addr::LOCALHOST.into());
    let peers: Vec<String> = peers
        .iter()
        .map(|peer| format!("{peer}/{}", if peer.is_ipv4() { 32 } else { 128 }))
        .collect();
    let values = context! {
        barred => door == Door::Barred,
        database => name_quoted(&node.database.user),
        peers,
    };
    render(HBA_CONF, values)
}

/// Whom a `pg_hba.conf` of [`hba`]'s lets in.
fn let_in(text: &[u8]) -> BTreeSet<IpAddr> {
    let text = String::from_utf8_lossy(text);
    let words = text.split_whitespace();
    let networks = words.filter_map(|word| word.split_once('/'));
    networks
        .filter_map(|(address, _)| address.parse().ok())
        .collect()
}

/// How the programs of PostgreSQL on `client` log in to `server`. The name is what the certificate is checked against;
/// the address is where to connect, so nothing depends on DNS.
pub(super) fn connection(
    client: &Node,
    server: &Node,
    role: &str,
    more: &[(&str, &str)],
) -> String {
    let conf = Paths::of(client).conf;
    let (address, port) = (
        server.host.address.to_string(),
        server.database.port.to_string(),
    );
    let (root, cert, key) = (
        format!("{conf}/ca.crt"),
        format!("{conf}/{role}.crt"),
        format!("{conf}/{role}.key"),
    );
    let mut parts = vec![
        ("host", server.host.name.as_str()),
        ("hostaddr", &address),
        ("port", &port),
        ("user", role),
        ("sslmode", "verify-full"),
        ("sslrootcert", &root),
        ("sslcert", &cert),
        ("sslkey", &key),
        ("connect_timeout", "5"),
        ("keepalives_idle", "5"),
        ("keepalives_interval", "2"),
        ("keepalives_count", "3"),
        ("tcp_user_timeout", "15000"),
    ];
    parts.extend_from_slice(more);
    let parts: Vec<String> = parts
        .iter()
        .map(|(name, value)| format!("{name}={}", value_quoted(value)))
        .collect();
    parts.join(" ")
}

/// `upstream.conf`: whom to follow. `None`: nobody, wait.
fn upstream(node: &Node, upstream: Option<&Node>) -> String {
    let Some(upstream) = upstream else {
        return String::new();
    };
    let slot = slot_of(&node.host.name);
    let link = connection(node, upstream, "hafog_repl", &[("application_name", &slot)]);
    let (link, slot) = (quoted(&link), quoted(&slot));
    format!("primary_conninfo = {link}\nprimary_slot_name = {slot}\n")
}

/// `confirm.conf`: all of them, in any order.
fn confirm(by: &[ServerName]) -> String {
    let slots: Vec<String> = by.iter().map(|one| name_quoted(&slot_of(one))).collect();
    let wanted = match slots.len() {
        0 => String::new(),
        count => format!("FIRST {count} ({})", slots.join(", ")),
    };
    format!("synchronous_standby_names = {}\n", quoted(&wanted))
}

/// The nodes in `synchronous_standby_names`, as [`confirm`] writes it.
pub(super) fn confirmers(setting: &str) -> Vec<ServerName> {
    let list = setting
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(')'));
    let names = list
        .map(|(names, _)| names.split(','))
        .into_iter()
        .flatten();
    names
        .map(|name| server_of(name.trim().trim_matches('"')))
        .collect()
}

fn file(path: String, text: String, mode: u32) -> File {
    File {
        path,
        bytes: text.into_bytes(),
        mode,
        for_service_user: true,
    }
}

/// Writes everything that belongs to this server, and returns whether anything was different before. Without the
/// authority (on the agent's side) the keys stay as they are.
pub(super) async fn put_all(node: &Node, door: Door, reach: &Reach) -> Result<bool, Trouble> {
    let conf = Paths::of(node).conf;
    let mut files = vec![file(
        Paths::of(node).settings(),
        settings(node).nothing_changed()?,
        0o600,
    )];
    if reach.keys.is_authority() {
        files.push(file(
            format!("{conf}/{AUTHORITY}.crt"),
            reach.keys.ca_pem().nothing_changed()?.to_owned(),
            0o600,
        ));
        let server = reach.keys.server(&node.host).nothing_changed()?;
        let mut pairs = vec![(SERVER, server)];
        for role in ROLES {
            pairs.push((role, reach.keys.client(role).nothing_changed()?));
        }
        for (name, pair) in pairs {
            files.push(file(format!("{conf}/{name}.key"), pair.key_pem, 0o600));
            files.push(file(format!("{conf}/{name}.crt"), pair.cert_pem, 0o600));
        }
    }
    let mut changed = false;
    for file in &files {
        changed |= put_changed(node, file, reach).await?;
    }
    changed |= put_hba(node, door, reach).await?;
    Ok(changed)
}

/// As they are on the node; none where PostgreSQL was never set up.
pub(super) async fn certificates(node: &Node, reach: &Reach) -> Result<Vec<Certificate>, Fault> {
    let conf = Paths::of(node).conf;
    let read = |name: &'static str| {
        let path = format!("{conf}/{name}.crt");
        async move {
            let Some(pem) = reach.shell.get(&node.host, &path).await? else {
                return Ok(None);
            };
            let until = certificate::until(&pem)
                .ok_or_else(|| Fault::new(format!("`{path}` is no certificate")))?;
            let name = name.to_owned();
            Ok::<_, Fault>(Some(Certificate { name, until }))
        }
    };
    // At once: each may be a journey.
    let names = [AUTHORITY, SERVER].into_iter().chain(ROLES);
    let found: Vec<Option<Certificate>> = try_join_all(names.map(read)).await?;
    Ok(found.into_iter().flatten().collect())
}

/// Returns whether the file was another one before.
async fn put_changed(node: &Node, file: &File, reach: &Reach) -> Result<bool, Trouble> {
    let before = reach
        .shell
        .get(&node.host, &file.path)
        .await
        .nothing_changed()?;
    if before.as_ref() == Some(&file.bytes) {
        return Ok(false);
    }
    reach.shell.put(&node.host, file).await?;
    Ok(true)
}

pub(super) async fn put_hba(node: &Node, door: Door, reach: &Reach) -> Result<bool, Trouble> {
    let mut node = node.clone();
    if node.lacks_peers {
        let path = Paths::of(&node).hba();
        let before = reach.shell.get(&node.host, &path).await.nothing_changed()?;
        node.peers
            .extend(before.iter().flat_map(|text| let_in(text)));
    }
    let node = &node;
    let text = hba(node, door).nothing_changed()?;
    put_changed(node, &file(Paths::of(node).hba(), text, 0o600), reach).await
}

/// What the file says now; `None` where PostgreSQL was never set up.
pub(super) async fn door(node: &Node, reach: &Reach) -> Result<Option<Door>, Fault> {
    let text = reach.shell.get(&node.host, &Paths::of(node).hba()).await?;
    let door = |text: Vec<u8>| {
        if text.starts_with(b"# barred") {
            Door::Barred
        } else {
            Door::Open
        }
    };
    Ok(text.map(door))
}

pub(super) async fn put_upstream(
    node: &Node,
    above: Option<&Node>,
    reach: &Reach,
) -> Result<bool, Trouble> {
    let path = Paths::of(node).upstream();
    put_changed(node, &file(path, upstream(node, above), 0o600), reach).await
}

pub(super) async fn put_confirm(
    node: &Node,
    by: &[ServerName],
    reach: &Reach,
) -> Result<(), Trouble> {
    let path = Paths::of(node).confirm();
    let changed = put_changed(node, &file(path, confirm(by), 0o600), reach).await;
    changed.map(drop)
}

/// Puts a file with SQL where only the service user reads it.
pub(super) async fn put_sql(
    node: &Node,
    name: &str,
    sql: String,
    reach: &Reach,
) -> Result<String, Trouble> {
    let path = format!("{}/{name}", Paths::of(node).conf);
    reach
        .shell
        .put(&node.host, &file(path.clone(), sql, 0o600))
        .await?;
    Ok(path)
}

/// A server that crashed, or whose machine did, leaves its process id in `postmaster.pid`. When that is another
/// process's by now, of the same user, PostgreSQL refuses to start for as long as that one lives. A server works in its
/// data folder; where the id's process does not, it is replaced by one that nobody can have. The file stays: by the
/// shared memory that it names PostgreSQL knows whether processes of the old server are still there.
const NOBODY: &str = r#"pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) || exit 0; case $pid in ''|*[!0-9]*) exit 0 ;; esac; [ -e /proc/self/cwd ] || exit 0; [ "$(readlink "/proc/$pid/cwd")" = "$(readlink -f "$1")" ] || sed -i "1s/.*/2147483647/" "$1/postmaster.pid" || exit 0"#;

/// Tells the supervisor about the service. Every start of it comes up as a replica: only a promotion opens it.
pub(super) async fn install(node: &Node, bin: &str, reach: &Reach) -> Result<(), Trouble> {
    let paths = Paths::of(node);
    let argv = [
        format!("{bin}/postgres"),
        "-D".to_owned(),
        paths.main.clone(),
        "-c".to_owned(),
        format!("config_file={}", paths.settings()),
        "-c".to_owned(),
        format!("hba_file={}", paths.hba()),
    ];
    let signal = format!("{}/standby.signal", paths.main);
    let name = service_name(&node.database.name);
    let service = Service {
        before: vec![
            ["sh", "-c", NOBODY, "sh", &paths.main]
                .map(str::to_owned)
                .to_vec(),
            vec!["touch".to_owned(), signal],
        ],
        as_service_user: true,
        stop_signal: StopSignal::Int,
        ..Service::new(name, argv.to_vec(), STOP_LIMIT)
    };
    change(node, ServiceChange::Install(Box::new(service)), reach).await
}

pub(super) async fn change(
    node: &Node,
    change: ServiceChange,
    reach: &Reach,
) -> Result<(), Trouble> {
    let name = service_name(&node.database.name);
    reach.shell.service(&node.host, &name, change).await
}

/// As the supervisor has it; `None` where it is not installed.
pub(super) async fn service(node: &Node, reach: &Reach) -> Result<Option<ServiceState>, Fault> {
    let name = service_name(&node.database.name);
    let services = reach.shell.services(&node.host).await?;
    Ok(services.into_iter().find(|service| service.name == name))
}

/// Whether somebody told the supervisor that it should not run. What cannot be found out is no.
pub(super) async fn is_unwanted(node: &Node, reach: &Reach) -> bool {
    let found = service(node, reach).await.ok().flatten();
    found.is_some_and(|service| !service.wanted && !service.running)
}

/// The process that the supervisor started; none where it does not say so.
pub(super) async fn pid(node: &Node, reach: &Reach) -> Option<u32> {
    let found = service(node, reach).await.ok()??;
    found.pid.filter(|_| found.running)
}

/// `None`: the service is not installed.
pub(super) async fn is_running(node: &Node, reach: &Reach) -> Result<Option<bool>, Fault> {
    let found = service(node, reach).await?;
    Ok(found.map(|service| service.running))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_let_in_is_read_back() {
        let peers = ["127.0.0.1", "10.1.0.2", "192.0.2.7", "2001:db8::1"];
        let peers: BTreeSet<IpAddr> = peers.map(|peer| peer.parse().unwrap()).into();
        for barred in [false, true] {
            let networks = peers.iter().map(|peer| format!("{peer}/32"));
            let values = context! {
                barred,
                database => name_quoted("shop/32 of 10.9.9.9"),
                peers => networks.collect::<Vec<_>>(),
            };
            let text = render(HBA_CONF, values).unwrap();
            assert_eq!(let_in(text.as_bytes()), peers, "{text}");
        }
        assert_eq!(let_in(b""), BTreeSet::new());
    }

    #[test]
    fn who_confirms_is_read_back() {
        for names in [vec![], vec!["shop-west-db-1"], vec!["a-1", "b-2"]] {
            let names: Vec<ServerName> = names.into_iter().map(ServerName::new).collect();
            let text = confirm(&names);
            let setting = text.split('\'').nth(1).expect("it is quoted");
            assert_eq!(confirmers(setting), names, "{text}");
        }
        assert_eq!(
            confirm(&["a-1".into(), "b-2".into()]),
            "synchronous_standby_names = 'FIRST 2 (\"a_1\", \"b_2\")'\n"
        );
    }
}
