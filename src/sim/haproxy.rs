//! What a simulated HAProxy answers at its socket: who is in rotation.

use super::world::World;
use crate::model::id::ServerName;
use crate::model::stack::{Job, SPARE_GROUP};
use crate::shell::{Command, Ran};

pub(super) const SERVICE: &str = "haproxy";

/// The words of `hafog haproxy SOCKET WORDS`.
pub(super) fn words(command: &Command) -> Option<&str> {
    match command.argv.as_slice() {
        [_, verb, _, words] if verb == "haproxy" => Some(words),
        _ => None,
    }
}

pub(super) fn is_look(words: &str) -> bool {
    words.starts_with("show ")
}

fn said(text: String) -> Ran {
    Ran {
        code: 0,
        stdout: text,
        stderr: String::new(),
    }
}

/// What stands behind a keyword of a file.
fn lines_of<'a>(file: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = file.lines().map(str::trim);
    lines.filter_map(move |line| line.strip_prefix(keyword))
}

impl World {
    pub(super) fn haproxy(&mut self, balancer: &ServerName, words: &str) -> Ran {
        let words: Vec<&str> = words.split(' ').collect();
        let runs = self.servers[balancer].runs(SERVICE);
        match words.as_slice() {
            _ if !runs => Ran {
                code: 69,
                stdout: String::new(),
                stderr: "no answer from `haproxy.sock`".to_owned(),
            },
            ["show", "stat", ..] => said(self.rotation(balancer)),
            ["show", "info"] => {
                let mark = lines_of(self.loaded(balancer), "description ").next();
                said(mark.map_or_else(String::new, |mark| format!("description: {mark}\n")))
            }
            ["show", "servers", "state"] => {
                let out = self.servers[balancer].out.iter();
                let out = out.map(|name| format!("{name} 8\n")).collect::<String>();
                said(format!("1\n# srv_name srv_admin_state\n{out}\n"))
            }
            ["set", "server", server, "state", state] => {
                let name = ServerName::from(server.rsplit('/').next().unwrap_or_default());
                let out = &mut self.server_mut(balancer).out;
                match *state {
                    "ready" => out.remove(&name),
                    _ => out.insert(name),
                };
                said("\n".to_owned())
            }
            other => panic!("nobody taught HAProxy `{}`", other.join(" ")),
        }
    }

    fn rotation(&self, balancer: &ServerName) -> String {
        let out = &self.servers[balancer].out;
        let mut table = "# pxname,svname,qcur,scur,status,\n".to_owned();
        for name in self.known_to(balancer) {
            let status = match self.serve(&name) {
                Ok(200) if out.contains(&name) => "DRAIN",
                Ok(200) => "UP",
                _ => "DOWN",
            };
            let spares = self.planned.get(&name).map(|server| server.group.as_str());
            let backend = match spares == Some(SPARE_GROUP) {
                true => "spared",
                false => "servers",
            };
            table.push_str(&format!("{backend},{name},0,0,{status},\n"));
        }
        table
    }

    fn loaded(&self, balancer: &ServerName) -> &str {
        let service = &self.servers[balancer].services[SERVICE];
        service.loaded.as_deref().unwrap_or_default()
    }

    /// The servers in the file that a balancer has read; one that was never told has those of the plan.
    fn known_to(&self, balancer: &ServerName) -> Vec<ServerName> {
        let file = self.loaded(balancer);
        match file.is_empty() {
            true => self.behind(&self.planned[balancer]).cloned().collect(),
            false => {
                let names = lines_of(file, "server ").filter_map(|line| line.split(' ').next());
                names.map(ServerName::from).collect()
            }
        }
    }

    /// The servers that a balancer sends requests to.
    fn behind<'a>(
        &'a self,
        balancer: &'a crate::model::stack::Server,
    ) -> impl Iterator<Item = &'a ServerName> {
        self.servers.keys().filter(|name| {
            self.planned.get(*name).is_some_and(|app| {
                app.job == Job::App
                    && app.site == balancer.site
                    && self.balanced.contains(&app.group)
            })
        })
    }

    pub(super) fn balances(&self, name: &ServerName) -> bool {
        let out = &self.servers[name].out;
        let mut behind = self.behind(&self.planned[name]);
        behind.any(|app| !out.contains(app) && self.works(app, &self.servers[app]))
    }
}
