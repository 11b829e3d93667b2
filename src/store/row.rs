//! Rows as structs: serde reads the columns of a row, in their order, into the fields of a struct or a tuple, also of
//! structs in these, or the only one into a number or a text. What does not fit a number is 0; an `Option` is `None`
//! where the column is NULL or not there.

use std::slice::Iter;

use serde::de::value::Error as Wrong;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::pool::Store;
use super::sql::{Connection, Error, Value};

/// The columns of a row that are not read yet.
struct Columns<'r>(Iter<'r, Value<'r>>);

impl Columns<'_> {
    fn next(&mut self) -> Result<&Value<'_>, Wrong> {
        self.0.next().ok_or_else(|| serde::de::Error::custom("a row is short of columns"))
    }
}

macro_rules! numbers {
    ($($read:ident $visit:ident)*) => {
        $(fn $read<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            visitor.$visit(self.next()?.small())
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Columns<'_> {
    type Error = Wrong;

    numbers! { deserialize_u16 visit_u16 deserialize_u32 visit_u32 deserialize_u64 visit_u64 deserialize_i64 visit_i64 }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_bool(self.next()?.int() != 0)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_str(&String::from_utf8_lossy(self.next()?.bytes()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0.as_slice().first() {
            None => visitor.visit_none(),
            Some(Value::Null) => self.next().and_then(|_| visitor.visit_none()),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_seq(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_seq(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple_struct map enum identifier
        ignored_any
    }
}

impl<'de> SeqAccess<'de> for &mut Columns<'_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        seed.deserialize(&mut **self).map(Some)
    }
}

/// The struct that a row is; `None` if a column cannot be read as what it should be.
pub(super) fn read<T: DeserializeOwned>(row: &[Value]) -> Option<T> {
    T::deserialize(&mut Columns(row.iter())).ok()
}

/// All rows of a query.
pub(super) fn rows<T: DeserializeOwned>(c: &mut dyn Connection, sql: &str, values: &[Value]) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    c.query(sql, values, &mut |row| found.extend(read::<T>(row)))?;
    Ok(found)
}

impl Store {
    pub(super) fn rows<T: DeserializeOwned>(&self, sql: &str, values: &[Value]) -> Result<Vec<T>, Error> {
        self.with(|c| rows(c, sql, values))
    }

    pub(super) fn row<T: DeserializeOwned>(&self, sql: &str, values: &[Value]) -> Result<Option<T>, Error> {
        Ok(self.rows(sql, values)?.pop())
    }

    /// A number that goat keeps for itself.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        self.row("SELECT value FROM goat WHERE name = ?", &[name.into()])
    }

    /// Runs one statement in a transaction; returns how many rows it changed.
    pub(super) fn write(&self, sql: &str, values: &[Value]) -> Result<u64, Error> {
        self.transaction(|c| c.execute(sql, values))
    }
}
