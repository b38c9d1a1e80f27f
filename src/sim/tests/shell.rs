//! Files, services and commands on a server.

use super::*;
use crate::shell::{Command, File};

#[tokio::test]
async fn files_services_and_commands_are_recorded() {
    let world = stood().await;
    let (shell, name) = (world.shell(&west()), ServerName::from("shop-west-web-1"));
    let host = world.server(&name).unwrap().host(&name);
    let file = File {
        path: format!("{}/app/conf", host.dirs.etc),
        bytes: b"hello".to_vec(),
        mode: 0o600,
        for_service_user: false,
    };
    shell.put(&host, &file).await.unwrap();
    assert_eq!(
        shell.get(&host, &file.path).await.unwrap().unwrap(),
        b"hello"
    );
    assert!(shell.remove(&host, &host.dirs.image).await.is_err());
    let sneaky = format!("{}/../image", host.dirs.etc);
    assert!(shell.remove(&host, &sneaky).await.is_err());
    let folder = format!("{}/app", host.dirs.etc);
    shell.remove(&host, &folder).await.unwrap();
    shell.remove(&host, &folder).await.unwrap();
    assert_eq!(shell.get(&host, &file.path).await.unwrap(), None);

    let answer = Ran {
        code: 3,
        stdout: "no".to_owned(),
        stderr: String::new(),
    };
    world.set_command_answer("is-ok", answer.clone());
    let ran = shell.run(&host, &Command::new(["app", "is-ok"])).await;
    assert_eq!(ran.unwrap(), answer);
    assert_eq!(world.server(&name).unwrap().commands, ["app is-ok"]);

    let stop = ServiceChange::Stop { signal: None };
    shell.service(&host, "web", stop.clone()).await.unwrap();
    assert!(shell.service(&host, "other", stop).await.is_err());
    let state = shell.services(&host).await.unwrap().remove(0);
    assert_eq!(
        (state.running, state.wanted, state.starts),
        (false, false, 1)
    );
    shell
        .service(&host, "web", ServiceChange::Start)
        .await
        .unwrap();
    assert_eq!(shell.services(&host).await.unwrap()[0].starts, 2);
    shell
        .service(&host, "web", ServiceChange::Remove)
        .await
        .unwrap();
    assert!(shell.services(&host).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_old_address_is_nobodys() {
    let world = stood().await;
    let (name, cloud) = (ServerName::from("shop-west-web-1"), world.cloud(&west()));
    let old = world.server(&name).unwrap().host(&name);
    cloud.delete_server(&name).await.unwrap();
    cloud
        .create_server(&want(name.as_str(), None), &key("2"))
        .await
        .unwrap();
    world.advance(secs(2));
    assert!(world.shell(&west()).services(&old).await.is_err());
}

#[tokio::test]
async fn the_engine_s_service_is_the_node() {
    let world = stood().await;
    let host = node(&world, EAST).host;
    let shell = world.shell(&east());
    let change = |change| shell.service(&host, "postgres-main", change);
    change(ServiceChange::Stop { signal: None }).await.unwrap();
    let engine = world.engine("postgres");
    let refusal = engine
        .write_refused(&node(&world, EAST), &reach(&world))
        .await;
    assert_eq!(refusal.unwrap().unwrap(), "connection refused");
    change(ServiceChange::Start).await.unwrap();
    let status = engine.status(&node(&world, EAST), &reach(&world)).await;
    assert!(!status.unwrap().writable);
}
