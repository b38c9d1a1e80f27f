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
                let mark = self.servers[balancer].services[SERVICE].loaded.clone();
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
        for name in self.behind(&self.planned[balancer]) {
            let status = match self.serve(name) {
                Ok(200) if out.contains(name) => "DRAIN",
                Ok(200) => "UP",
                _ => "DOWN",
            };
            let backend = match self.planned[name].group.as_str() == SPARE_GROUP {
                true => "spared",
                false => "servers",
            };
            table.push_str(&format!("{backend},{name},0,0,{status},\n"));
        }
        table
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
