//! The one place where SQL is put together: a text of ours, and the validated name of the schema.

use std::borrow::Cow;

use onceward_core::Schema;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// Where the schema's name goes.
const PLACEHOLDER: &str = "{{schema}}";

/// A statement of ours, for one schema. Cheap to clone: render once, run often.
pub(crate) fn render(schema: &Schema, text: &'static str) -> SqlStr {
    // Quoted, as the name may be a word of SQL, such as "order".
    let text = text.replace(PLACEHOLDER, &identifier(schema.as_str()));
    AssertSqlSafe(text).into_sql_str()
}

/// The same for a statement about one slot of the log.
pub(crate) fn render_slot(schema: &Schema, text: &'static str, slot: i16) -> SqlStr {
    let text = text.replace("{{slot}}", &slot.to_string());
    let text = text.replace(PLACEHOLDER, &identifier(schema.as_str()));
    AssertSqlSafe(text).into_sql_str()
}

/// A statement put together from parts of ours.
pub(crate) fn render_parts(schema: &Schema, text: &str) -> SqlStr {
    let text = text.replace(PLACEHOLDER, &identifier(schema.as_str()));
    AssertSqlSafe(text).into_sql_str()
}

/// A name as SQL takes it, whatever it is: a word of SQL, and with quotes in it.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text of somebody else's, such as a broker's error, as PostgreSQL takes it: it stores no NUL, and refuses the whole statement.
pub(crate) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_takes_its_place_in_quotes() {
        let schema = Schema::try_from("order").unwrap();

        let sql = render(&schema, "select from {{schema}}.messages");

        assert_eq!(sql.as_str(), "select from \"order\".messages");
    }
}
