//! Health: does a site's front door answer?

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;

use super::{Act, Context, Standing, balancer, cache, rotation};
use crate::error::{Fault, Trouble, TroubleExt};
use crate::model::id::*;
use crate::model::stack::{BALANCER_GROUP, Check, Job, Server};
use crate::plan::action::*;
use crate::probe::HttpAsk;
use crate::wait;
use crate::world::World;

const ASK_LIMIT: Duration = Duration::from_secs(2);

/// One request to a site, straight at an address.
pub struct Door {
    pub asks: Vec<HttpAsk>,
    pub status: u16,
    pub contains: Option<String>,
}

/// What "the site is healthy" means: every HTTP check of the spec, asked at the site's address or balancer (or, without either, at
/// every app server). `None`: the spec gives nothing to ask.
pub async fn front_door(world: &World, site: &SiteName) -> Result<Option<Vec<Door>>, Fault> {
    let stack = &world.stack;
    let balancer = GroupName::new(BALANCER_GROUP);
    let servers: Vec<_> = match &stack.balancer {
        Some(_) => stack.group_at(site, &balancer).collect(),
        None => stack
            .servers_at(site)
            .filter(|server| server.job == Job::App)
            .collect(),
    };
    let open = match &stack.balancer {
        Some(balancer) => &balancer.listen[..],
        None => servers.first().map_or(&[][..], |server| &server.open),
    };
    let Some(listen) = open.first() else {
        return Ok(None);
    };
    let addresses = world.visited_at(site, &servers).await?;
    let mut doors = Vec::new();
    for check in &stack.health {
        let Check::Http {
            url,
            status,
            contains,
        } = check
        else {
            continue;
        };
        let page = split(url);
        let port = page.port.filter(|port| open.contains(port));
        let port = world.port(site, port.unwrap_or(*listen));
        doors.push(Door {
            asks: asks(&addresses, port, &page),
            status: *status,
            contains: contains.clone(),
        });
    }
    if doors.is_empty() {
        let Some(balancer) = &stack.balancer else {
            return Ok(None);
        };
        let host = stack
            .names
            .first()
            .map_or_else(|| stack.name.to_string(), |name| name.host.to_string());
        let page = Page {
            host,
            port: None,
            path: balancer.check.clone(),
            tls: false,
        };
        doors.push(Door {
            asks: asks(&addresses, world.port(site, *listen), &page),
            status: 200,
            contains: None,
        });
    }
    Ok(Some(doors))
}

fn asks(to: &[IpAddr], port: u16, page: &Page) -> Vec<HttpAsk> {
    to.iter()
        .map(|to| HttpAsk {
            to: SocketAddr::new(*to, port),
            host: page.host.clone(),
            path: page.path.clone(),
            tls: page.tls,
            limit: ASK_LIMIT,
        })
        .collect()
}

/// What a URL asks for.
#[derive(Debug, PartialEq)]
struct Page {
    host: String,
    port: Option<u16>,
    path: String,
    tls: bool,
}

/// Takes apart a URL that the spec's reader has accepted.
fn split(url: &str) -> Page {
    let (tls, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://").unwrap_or(url)),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split('#').next().unwrap_or_default();
    // The colons of an IPv6 address stand in brackets.
    let port = authority.rsplit_once(':');
    let port = port.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = port.map_or((authority, None), |(host, port)| (host, Some(port)));
    Page {
        host: host.to_owned(),
        port,
        path: match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        },
        tls,
    }
}

/// Asks every door of a site once. The error says which did not answer as it should.
pub async fn knock(world: &World, site: &SiteName) -> Result<Result<String, String>, Fault> {
    let Some(doors) = front_door(world, site).await? else {
        return Ok(Ok(format!("{site} has no health check")));
    };
    let mut answers = 0;
    for door in &doors {
        for ask in &door.asks {
            let answer = match world.probe.http(ask).await {
                Ok(answer) => answer,
                Err(fault) => return Ok(Err(format!("{}{}: {fault}", ask.to, ask.path))),
            };
            if answer.status != door.status {
                return Ok(Err(format!(
                    "{}{} answers {}, not {}",
                    ask.to, ask.path, answer.status, door.status
                )));
            }
            if let Some(text) = door
                .contains
                .as_ref()
                .filter(|text| !answer.body.contains(*text))
            {
                return Ok(Err(format!(
                    "the answer of {}{} does not contain `{text}`",
                    ask.to, ask.path
                )));
            }
            answers += 1;
        }
    }
    Ok(Ok(format!(
        "{answers} of {answers} health checks pass at {site}"
    )))
}

/// Whether a server does its work, asked straight. Of a database only whether its services run.
pub async fn works(world: &World, server: &Server) -> Result<(), String> {
    match &server.job {
        Job::Database(_) => services_run(world, server).await,
        Job::App => {
            services_run(world, server).await?;
            balancer::answers(world, &server.name).await
        }
        // Whatever it says of those behind it, it is there and says it.
        Job::Balancer => balancer::ask(world, server, "/").await.map(drop),
        Job::Cache => match balancer::ask(world, server, cache::ALIVE).await?.0 {
            200 => Ok(()),
            status => Err(format!("it answers {status}")),
        },
    }
}

async fn services_run(world: &World, server: &Server) -> Result<(), String> {
    let words = |fault: Fault| fault.to_string();
    let host = world.host(&server.name).await.map_err(words)?;
    let shell = world.shell(&server.site).map_err(words)?;
    let services = shell.services(&host).await.map_err(words)?;
    match services.iter().find(|service| !service.running) {
        Some(service) => Err(format!("its service `{}` does not run", service.name)),
        None => Ok(()),
    }
}

async fn check(context: &Context<'_>, site: &SiteName) -> Result<Standing, Fault> {
    match knock(context.world, site).await? {
        Ok(evidence) => Ok(Standing::Done(evidence)),
        Err(_) => Ok(Standing::Ready),
    }
}

async fn act(context: &Context<'_>, site: &SiteName) -> Result<(), Trouble> {
    let what = format!("{site} passes its health checks");
    wait::until(
        context.world.clock.as_ref(),
        &what,
        context.step.limit.0,
        || async {
            match knock(context.world, site).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(why)) => Err(why),
                Err(fault) => Err(fault.to_string()),
            }
        },
    )
    .await
    .nothing_changed()
}

#[async_trait]
impl Act for AwaitHealthy {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        check(context, &self.site).await
    }
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        act(context, &self.site).await
    }
}

#[async_trait]
impl Act for AwaitServer {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        match self.serves(context.world).await {
            Ok(()) => Ok(Standing::done(format!("{} does its work", self.server))),
            Err(_) => Ok(Standing::Ready),
        }
    }

    /// A deploy that was cut may have left the one before it out of rotation, under the same name.
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        let world = context.world;
        let what = format!("{} does its work", self.server);
        let limit = context.step.limit.0;
        // A balancer that was started just now does not hear yet.
        let waited = wait::until(world.clock.as_ref(), &what, limit, || async {
            let let_in = rotation::let_in(world, &self.server).await;
            let_in.map_err(|trouble| trouble.fault().to_string())?;
            self.serves(world).await
        });
        waited.await.partial()
    }
}

impl AwaitServer {
    async fn serves(&self, world: &World) -> Result<(), String> {
        let server = world.server(&self.server);
        works(world, server.map_err(|fault| fault.to_string())?).await?;
        rotation::is_in(world, &self.server).await
    }
}

#[async_trait]
impl Act for SmokeTest {
    async fn check(&self, context: &Context<'_>) -> Result<Standing, Fault> {
        check(context, &self.site).await
    }
    async fn act(&self, context: &Context<'_>) -> Result<(), Trouble> {
        act(context, &self.site).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_host_port_and_path() {
        let asked = |url| {
            let page = split(url);
            (page.host, page.port, page.path, page.tls)
        };
        let page =
            |host: &str, port, path: &str, tls| (host.to_owned(), port, path.to_owned(), tls);
        assert_eq!(
            asked("http://www.shop.test"),
            page("www.shop.test", None, "/", false)
        );
        assert_eq!(
            asked("https://www.shop.test:8443/healthz?deep=1#top"),
            page("www.shop.test", Some(8443), "/healthz?deep=1", true)
        );
        assert_eq!(
            asked("http://[::1]:8080/x"),
            page("[::1]", Some(8080), "/x", false)
        );
        assert_eq!(asked("http://[::1]/x"), page("[::1]", None, "/x", false));
        assert_eq!(
            asked("http://shop.test?x"),
            page("shop.test", None, "/?x", false)
        );
    }
}
