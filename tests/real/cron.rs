//! What comes with a new image besides its code: services, secrets, jobs. And jobs, which only the primary site does.

use std::path::Path;

use super::lab::{Lab, SPEC, turn};

/// Where services and jobs leave word.
const WORD: &str = "word";

struct Shop {
    lab: Lab,
}

impl Shop {
    /// With these lines in the recipe.
    fn spec(&self, app: &str, more: &str) -> String {
        let services = "      # A small web shop";
        assert!(SPEC.contains(services));
        let spec = SPEC.replace("$HAFOG_EXE demo-app", app);
        let (cron, service) = match more.split_once('|') {
            Some((cron, service)) => (format!("    cron:\n      - {cron}\n"), service),
            None => (String::new(), more),
        };
        let service = match service {
            "" => String::new(),
            service => format!("      - {service}\n"),
        };
        spec.replace(
            "    services:\n",
            &format!("{cron}    services:\n{service}"),
        )
        .replace(
            "{ DATABASE_PASSWORD: env }",
            "{ DATABASE_PASSWORD: env, GREETING: \"file:./greeting\" }",
        )
    }

    fn deploy(&self, app: &str, more: &str, code: i32) {
        self.lab.home.write("hafog.yaml", &self.spec(app, more));
        let ran = self.lab.run("deploy --yes");
        assert_eq!(ran.code, code, "{}", ran.all());
    }

    /// The services that a server has, by its supervisor.
    fn services(&self, site: &str, server: &str) -> Vec<String> {
        let facts = self.lab.facts();
        let host = &facts["sites"][site]["servers"][server]["host"];
        let data = host["dirs"]["data"].as_str().expect("a folder");
        let folder = Path::new(data)
            .parent()
            .expect("its server's")
            .join("services");
        let files = std::fs::read_dir(folder)
            .expect("it has services")
            .flatten();
        let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names
            .filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()))
            .collect();
        names.sort();
        names
    }

    fn word(&self) -> String {
        std::fs::read_to_string(self.lab.home.path().join(WORD)).unwrap_or_default()
    }

    fn log(&self, site: &str) -> String {
        let facts = self.lab.facts();
        let host = &facts["sites"][site]["servers"][format!("shop-{site}-web-1")]["host"];
        let log = host["dirs"]["log"].as_str().expect("a folder");
        std::fs::read_to_string(Path::new(log).join("cron.log")).unwrap_or_default()
    }
}

#[test]
fn a_deploy_brings_services_secrets_and_jobs_and_takes_them_back() {
    let test = "a_deploy_brings_services_secrets_and_jobs_and_takes_them_back";
    let Some(at_work) = turn(test) else { return };
    let lab = Lab::new();
    lab.must("up --yes");
    lab.must("clone west --yes");
    lab.home.write("greeting", "guten \"Tag\"");
    let word = lab.home.path().join(WORD).display().to_string();
    let shop = Shop { lab };
    let app = "$HAFOG_EXE demo-app";
    // Every minute, and it stays for an hour unless somebody ends it.
    let job = format!(
        r#"{{ name: report, at: "* * * * *", run: 'echo "report $HAFOG_SITE $GREETING" >> {word}; echo here; sleep 3600' }}"#
    );
    let extra = format!(
        r#"{{ name: extra, run: 'sh -c "echo extra $HAFOG_SERVER $GREETING >> {word}; exec sleep 100000"' }}"#
    );
    shop.deploy(app, &format!("{job}|{extra}"), 0);
    for (site, server, services) in [
        ("east", "shop-east-web-1", &["app", "cron", "extra"][..]),
        ("east", "shop-east-web-2", &["app", "extra"]),
        ("west", "shop-west-web-1", &["app", "cron", "extra"]),
        ("west", "shop-west-web-2", &["app", "extra"]),
    ] {
        assert_eq!(shop.services(site, server), services, "{server}");
        shop.lab.until("the new service runs", || {
            shop.word().contains(&format!("extra {server} guten"))
        });
    }
    assert!(shop.lab.must("up --yes").stdout.contains("nothing to do"));

    // Others may go on while this one waits for the minute.
    drop(at_work);
    shop.lab.until("the primary site does the job", || {
        shop.word().contains("report east guten \"Tag\"\n")
    });
    shop.lab.until("the standby does not", || {
        shop.log("west")
            .contains("report: not run: the site is standby")
    });
    assert!(!shop.word().contains("report west"), "{}", shop.word());
    let at_work = turn(test);
    shop.lab.must("switchover --yes");
    shop.lab.until("the job that ran is ended", || {
        let log = shop.log("east");
        log.contains("report: is ended: the site is standby now") && log.contains("ended after")
    });
    drop(at_work);
    let at_east = shop.word().matches("report east").count();
    shop.lab.until("the new primary site does it", || {
        shop.word().contains("report west guten \"Tag\"\n")
    });
    assert_eq!(shop.word().matches("report east").count(), at_east);
    assert!(
        shop.log("west").contains("report: | here"),
        "{}",
        shop.log("west")
    );

    let _at_work = turn(test);
    // What does not come up goes back, with the services that it had, though the recipe has them no longer.
    shop.deploy("false", "", 1);
    for (site, server) in [("east", "shop-east-web-1"), ("west", "shop-west-web-1")] {
        assert_eq!(
            shop.services(site, server),
            ["app", "cron", "extra"],
            "{server}"
        );
    }
    // The spec is ahead of the images now: they keep what they have, until the next deploy.
    shop.lab.must("up --yes");
    let services = shop.services("east", "shop-east-web-1");
    assert_eq!(services, ["app", "cron", "extra"]);
    shop.deploy(app, "", 0);
    assert_eq!(shop.services("east", "shop-east-web-1"), ["app"]);
    assert_eq!(shop.services("west", "shop-west-web-1"), ["app"]);
}
