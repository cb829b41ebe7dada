use super::*;

fn topic() -> Topic {
    Topic::try_from("orders.created").unwrap()
}

fn names(template: &RouteTemplate) -> Vec<String> {
    let routes = template.routes(&topic());
    routes.iter().map(Route::to_string).collect()
}

#[test]
fn a_template_puts_the_topic_in_its_place() {
    let template = RouteTemplate::new("shop.{topic}.v1", BTreeMap::new()).unwrap();

    assert_eq!(names(&template), ["shop.orders.created.v1"]);
    assert_eq!(names(&RouteTemplate::default()), ["orders.created"]);
}

#[test]
fn a_spread_topic_has_a_route_for_each_partition() {
    let template = RouteTemplate::new("s.{topic}.{partition/3}", BTreeMap::new()).unwrap();

    let expected = [0, 1, 2].map(|n| format!("s.orders.created.{n}"));
    assert_eq!(names(&template), expected);
}

#[test]
fn a_key_has_the_partition_that_the_nats_server_would_give_it() {
    let template = RouteTemplate::new("{partition/10}", BTreeMap::new()).unwrap();
    let routes = template.routes(&topic());
    let of = |key: &str| {
        let key = Key::try_from(key).unwrap();
        routes.of(Some(&key), &MessageId::Uuid(uuid::Uuid::now_v7()))
    };

    // FNV-1a of "a" is 0xe40c292c and of "foobar" 0xbf9cf968, by the test vectors of its authors.
    assert_eq!(of("a").as_str(), (0xe40c_292c_u32 % 10).to_string());
    assert_eq!(of("foobar").as_str(), (0xbf9c_f968_u32 % 10).to_string());
}

#[test]
fn messages_without_a_key_are_spread_by_their_ids() {
    let template = RouteTemplate::new("{topic}.{partition/4}", BTreeMap::new()).unwrap();
    let routes = template.routes(&topic());

    let ids = (0..1000_u128).map(|n| MessageId::Uuid(uuid::Uuid::from_u128(n << 7)));
    let seen: std::collections::BTreeSet<Route> = ids.map(|id| routes.of(None, &id)).collect();

    assert_eq!(seen.len(), 4);
}

#[test]
fn routes_that_hang_on_no_topic_are_known_beforehand() {
    let fixed = |template: &str| {
        let template = RouteTemplate::new(template, BTreeMap::new()).unwrap();
        let routes = template.fixed()?;
        Some(routes.iter().map(Route::to_string).collect::<Vec<_>>())
    };

    assert_eq!(fixed("events.fifo"), Some(vec!["events.fifo".to_owned()]));
    assert_eq!(
        fixed("e.{partition/2}"),
        Some(vec!["e.0".to_owned(), "e.1".to_owned()])
    );
    assert_eq!(fixed("shop.{topic}"), None);
}

#[test]
fn a_named_topic_has_its_own_route() {
    let named = BTreeMap::from([("orders.created".to_owned(), "legacy".to_owned())]);
    let template = RouteTemplate::new("{topic}", named).unwrap();

    assert_eq!(names(&template), ["legacy"]);
}

#[test]
fn it_is_known_which_topics_may_share_a_route() {
    let named = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(topic, route)| ((*topic).to_owned(), (*route).to_owned()));
        pairs.collect::<BTreeMap<_, _>>()
    };
    let shared = |template: &str, pairs: &[(&str, &str)], read: bool| {
        let template = RouteTemplate::new(template, named(pairs)).unwrap();
        template.is_shared(&topic(), |_| read)
    };

    assert!(!shared("{topic}", &[], true));
    assert!(!shared("shop.{topic}", &[("other", "legacy")], true));
    assert!(!shared("{topic}.{partition/8}", &[], true));
    assert!(shared("events.{partition/8}", &[], true));
    assert!(shared(
        "{topic}.{partition/2}",
        &[("other", "orders.created.1")],
        true
    ));
    assert!(shared("events", &[], true));
    assert!(!shared("events", &[("orders.created", "legacy")], true));
    assert!(shared("events", &[("orders.created", "events")], true));
    assert!(shared("{topic}", &[("other", "orders.created")], true));
    assert!(shared("{topic}", &[("orders.created", "legacy")], true));
    assert!(!shared("{topic}", &[("orders.created", "legacy")], false));
    assert!(!shared(
        "shop.{topic}",
        &[("orders.created", "legacy")],
        true
    ));
}

#[test]
fn a_route_by_name_takes_no_placeholder() {
    let named = BTreeMap::from([("orders".to_owned(), "shop.{partition/8}".to_owned())]);

    let error = RouteTemplate::new("{topic}", named).unwrap_err();

    assert!(error.to_string().contains("braces"), "{error}");
}

#[test]
fn a_broken_template_is_refused_with_what_is_allowed() {
    for text in [
        "",
        "{topic",
        "{key}",
        "{partition}",
        "{partition/0}",
        "{partition/257}",
        "{partition/+8}",
        "{topic}{partition/8}",
        "{partition/8}1.{topic}",
        "{partition/partition/8}",
        "{partition/2}.{partition/3}",
    ] {
        let error = RouteTemplate::new(text, BTreeMap::new()).unwrap_err();

        assert!(error.to_string().contains("{topic}"), "{error}");
    }
}
