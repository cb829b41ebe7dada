use super::{SMALL, assert_mentions, problems, read};

#[test]
fn an_invalid_schema_name_is_refused() {
    for name in ["a\\\"b", "Onceward", "pg_x", ""] {
        let error = problems("[database]", &format!("[database]\nschema = \"{name}\""));

        assert_mentions(&error, &["database.schema", "a-z 0-9 _"]);
    }
}

#[test]
fn admin_endpoints_that_others_can_reach_need_a_token() {
    let open = "[admin]\nlisten = \"0.0.0.0:9410\"\n[database]";

    assert_mentions(
        &problems("[database]", open),
        &["admin.listen", "admin.token"],
    );
    let token = "[admin]\nlisten = \"0.0.0.0:9410\"\ntoken = \"long enough\"\n[database]";
    assert!(read(&SMALL.replace("[database]", token)).is_ok());
    let short = "[admin]\ntoken = \"short\"\n[database]";
    assert_mentions(
        &problems("[database]", short),
        &["admin.token", "8 characters"],
    );
}
