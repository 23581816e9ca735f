//! Tests of datetime texts.

use proptest::prelude::*;

use super::*;

#[test]
fn every_form_is_read() {
    let noon = |micros: i64, offset| DateTime::timestamp(1_714_566_615_000_000 + micros, offset);
    let interval = |micros| Some(DateTime::Interval { micros });
    let table = [
        ("20240501123015.123456+000", noon(123_456, 0)),
        ("20240501143015.000000+120", noon(0, 120)),
        ("20240501040015.000000-510", noon(0, -510)),
        ("2024-05-01T12:30:15Z", noon(0, 0)),
        (" 2024-05-01T12:30:15 ", noon(0, 0)),
        ("2024-05-01T14:30:15.5+02:00", noon(500_000, 120)),
        ("2024-05-01T12:30:15.1234569Z", noon(123_456, 0)),
        ("2024-04-30T24:00:00Z", noon(-45_015_000_000, 0)),
        ("00000001010203.000004:000", interval(90_123_000_004)),
        ("99999999235959.999999:000", interval(INTERVAL_MAX)),
        ("P0DT1H2M3S", interval(3_723_000_000)),
        ("P1DT0.25S", interval(86_400_250_000)),
        ("PT90M", interval(5_400_000_000)),
        ("PT1H2M3.04S", interval(3_723_040_000)),
        ("PT2H0.1234567S", interval(7_200_123_456)),
        ("P0Y0M2D", interval(172_800_000_000)),
    ];
    for (text, expected) in table {
        assert!(expected.is_some());
        assert_eq!(DateTime::parse(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_datetime_is_refused() {
    let table = [
        "",
        "now",
        "20240501123015.123456",
        "20240230000000.000000+000",
        "20240501243015.123456+000",
        "20240501126015.123456+000",
        "2024050112301５.12345+000",
        "20240501123015,123456+000",
        "00000001240203.000004:000",
        "00000001010203.000004:001",
        "2024-13-01T00:00:00Z",
        "2024-05-01T24:00:01Z",
        "2024-05-01T12:30Z",
        "2024-05-01T12:30:15.Z",
        "2024-05-01T12:30:15+15:00",
        "2024-05-01T12:30:15+01:60",
        "-2024-05-01T12:30:15Z",
        "P",
        "PT",
        "P1",
        "P1Y",
        "P1M",
        "-P1D",
        "PT1M1H",
        "PT1.S",
        "PT.5S",
        "PT1M.5S",
        "PT1S.5S",
        "PT0S2.5S",
        "PT1S2M.5S",
        "PT1M2H3.5S",
        "PT+1.5S",
        "PT1.5.5S",
        "PT1.5M",
        "P100000000D",
        "P99999999999999999999D",
        "20240501**30**.******+000",
        "2024050112301*.000000+000",
        "20240501******.0*****+000",
        "20240501******.******:060",
        "*************************",
    ];
    for text in table {
        assert_eq!(DateTime::parse(text), None, "{text}");
    }
}

#[test]
fn i_16_each_kind_has_its_element() {
    let table = [
        (
            "20240501123015.120000+000",
            ("Datetime", "2024-05-01T12:30:15.12Z"),
        ),
        (
            "20240501123015.000000-090",
            ("Datetime", "2024-05-01T12:30:15-01:30"),
        ),
        (
            "20240501123015.000000+900",
            ("Datetime", "2024-04-30T21:30:15Z"),
        ),
        ("00000000010203.000000:000", ("Interval", "P0DT1H2M3S")),
        ("00000002010203.500000:000", ("Interval", "P2DT1H2M3.5S")),
        ("20240501******.******+060", ("Date", "2024-05-01+01:00")),
        (
            "202405********.******+000",
            ("CIM_DateTime", "202405********.******+000"),
        ),
        (
            "20240501123015.123***+000",
            ("CIM_DateTime", "20240501123015.123***+000"),
        ),
        (
            "00000002******.******:000",
            ("CIM_DateTime", "00000002******.******:000"),
        ),
        (
            "**************.******+***",
            ("CIM_DateTime", "**************.******+***"),
        ),
    ];
    for (cim, (element, text)) in table {
        let value = DateTime::parse(cim).unwrap();
        assert_eq!(value.to_xml(), (element, text.to_owned()), "{cim}");
        assert_eq!(value.to_string(), cim);
        let again = DateTime::parse(text).unwrap();
        if !cim.ends_with("+900") {
            assert_eq!(again, value, "{text}");
        }
    }
}

#[test]
fn moments_and_lengths_convert() {
    let moment: Timestamp = "2024-05-01T12:30:15.123456789Z".parse().unwrap();
    let value = DateTime::from(moment);
    assert_eq!(value.to_string(), "20240501123015.123456+000");
    assert_eq!(
        value.to_timestamp().map(Timestamp::as_microsecond),
        Some(moment.as_microsecond())
    );
    assert_eq!(value.to_duration(), None);
    let minutes = DateTime::from(Duration::from_secs(300));
    assert_eq!(minutes.to_string(), "00000000000500.000000:000");
    assert_eq!(minutes.to_duration(), Some(Duration::from_secs(300)));
    assert_eq!(minutes.to_timestamp(), None);
    assert_eq!(
        DateTime::from(Duration::MAX),
        DateTime::Interval {
            micros: INTERVAL_MAX
        }
    );
    assert_eq!(DateTime::timestamp(i64::MAX, 0), None);
    assert_eq!(DateTime::timestamp(0, 1000), None);
}

proptest! {
    #[test]
    fn a_timestamp_reads_back(micros in -62_167_219_200_000_000..253_402_300_800_000_000_i64, offset in -999..1000_i16) {
        if let Some(value) = DateTime::timestamp(micros, offset) {
            prop_assert_eq!(DateTime::parse(&value.to_string()), Some(value));
            if let DateTime::Timestamp { offset_minutes: -840..=840, .. } = value {
                prop_assert_eq!(DateTime::parse(&value.to_xml().1), Some(value));
            }
        }
    }

    #[test]
    fn an_interval_reads_back(micros in 0..=INTERVAL_MAX) {
        let value = DateTime::Interval { micros };
        prop_assert_eq!(DateTime::parse(&value.to_string()), Some(value));
        prop_assert_eq!(DateTime::parse(&value.to_xml().1), Some(value));
    }

    #[test]
    fn whatever_is_read_reads_back_from_its_text(text in r"[0-9]{8}[0-9*]{6}\.[0-9*]{6}[:+-][0-9*]{3}") {
        if let Some(value) = DateTime::parse(&text) {
            prop_assert_eq!(DateTime::parse(&value.to_string()), Some(value));
        }
    }
}
