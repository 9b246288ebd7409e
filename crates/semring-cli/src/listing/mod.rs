//! Rings as tables, as text and as JSON.

mod record;
mod table;
mod text;

pub(crate) use record::{
    LaneRecord, Record, down_address, fullest_lane, json_lines, json_with_lanes, pair_of, seconds,
    share, waiting_producers,
};
pub(crate) use table::{Column, columns_help, table, table_within};
pub(crate) use text::{describe, describe_pair};

#[cfg(test)]
mod tests {
    use semring::RingInfo;
    use serde_json::Value;

    use super::record::date;
    use super::table::{COLUMNS, DEFAULT_COLUMNS};
    use super::*;

    fn with_ring(label: &str, look: impl FnOnce(&RingInfo)) {
        let name = format!("cli-listing-{label}-{}", std::process::id());
        let ring = semring::mpsc::Builder::new(&name)
            .producers(2)
            .mode(0o640)
            .create()
            .unwrap();
        let mut producer = ring.attach_producer().unwrap();
        producer.send(b"twelve bytes").unwrap();
        let info = ring.info();
        drop(producer);
        ring.remove().unwrap();
        look(&info.unwrap());
    }

    #[test]
    fn json_has_the_fields_of_the_contract_in_its_order() {
        const CONTRACT: &str = "name address backend kind uuid mode owner capacity_bytes lanes producers \
                                consumer_pid used_bytes sent_messages received_messages lost_messages \
                                corrupt_lanes state created";
        with_ring("json", |info| {
            let line = json_lines(std::slice::from_ref(info));
            assert_eq!(line.matches('\n').count(), 1);
            let mut rest = &line[..];
            for field in CONTRACT.split_whitespace() {
                let key = format!("\"{field}\":");
                let at = rest
                    .find(&key)
                    .unwrap_or_else(|| panic!("{field} is missing or out of order"));
                rest = &rest[at + key.len()..];
            }
            let object: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(object["mode"], "0640");
            assert_eq!(object["lanes"], 2);
            assert_eq!(object["producers"], 1);
            assert_eq!(object["consumer_pid"], Value::Null);
            assert_eq!(object["sent_messages"], 1);
            assert_eq!(object["state"], "active");
            assert!(humantime::parse_rfc3339(object["created"].as_str().unwrap()).is_ok());
            let lanes: Value = serde_json::from_str(&json_with_lanes(info, None)).unwrap();
            assert_eq!(lanes["each_lane"][0]["unread_messages"], 1);
            assert_eq!(lanes["each_lane"][0]["producer_waits"], false);
        });
    }

    #[test]
    fn each_column_is_a_field_and_each_field_a_column() {
        with_ring("columns", |info| {
            let record = serde_json::to_value(Record::new(info)).unwrap();
            let mut fields: Vec<_> = record.as_object().unwrap().keys().cloned().collect();
            let mut columns = COLUMNS.map(|column| column.field.to_owned()).to_vec();
            fields.sort();
            columns.sort();
            assert_eq!(fields, columns);
            assert!(
                DEFAULT_COLUMNS
                    .iter()
                    .all(|name| name.parse::<Column>().is_ok())
            );
            assert!("colour".parse::<Column>().is_err());
        });
    }

    #[test]
    fn cells_stand_under_their_headings() {
        with_ring("table", |info| {
            let columns = ["address", "used_bytes"].map(|name| name.parse().unwrap());
            let text = table(std::slice::from_ref(info), &columns, true);
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[0].find("USED").unwrap() + "USED".len();
            assert_eq!(&lines[1][end - 3..], " 24");
            let bare = table(std::slice::from_ref(info), &columns, false);
            assert_eq!(bare, format!("{}  24\n", info.address));
            assert!(table(&[], &[], false).is_empty());
        });
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        with_ring("narrow", |info| {
            let rings = std::slice::from_ref(info);
            assert_eq!(table_within(rings, 200, true), table(rings, &[], true));
            let narrow = table_within(rings, 80, true);
            assert!(
                narrow.lines().all(|line| line.chars().count() <= 80),
                "{narrow}"
            );
            assert!(
                !narrow.contains("KIND") && narrow.contains("UNREAD"),
                "{narrow}"
            );
            // As few as there are.
            assert!(table_within(rings, 1, false).contains("active"));
        });
    }

    #[test]
    fn a_description_names_producer_and_lanes() {
        with_ring("describe", |info| {
            let text = describe(info);
            assert!(
                text.contains("mpsc, 2 lanes of 256 KiB") && text.contains("by semring rm only")
            );
            let pid = std::process::id().to_string();
            assert!(
                text.lines()
                    .any(|line| line.split_whitespace().nth(1) == Some(&pid))
            );
        });
    }

    #[test]
    fn dates_are_rfc_3339_whatever_the_segment_says() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(1_790_000_000_999_999_999), "2026-09-21T14:13:20Z");
        assert!(date(u64::MAX).ends_with('Z'));
    }
}
