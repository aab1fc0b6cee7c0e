from qat.report import formats


def test_shares_are_percentages_and_other_metrics_plain_numbers():
    assert formats.metric_text("accuracy", 0.98612) == "98.61 %"
    assert formats.metric_text("val_top1", 0.5) == "50.00 %"
    assert formats.metric_text("loss", 0.123456) == "0.1235"
    assert formats.metric_text("accuracy", None) == "–"
    assert formats.difference_text("accuracy", 0.9861, 0.9889) == "-0.28 points"
    assert formats.difference_text("accuracy", 0.9, None) == "–"


def test_bytes_are_in_decimal_units():
    written = [formats.bytes_text(count) for count in (0, 999, 1000, 26_912, 999_600, 1_084_000, 2_000_000_000)]
    assert written == ["0 B", "999 B", "1 kB", "26.9 kB", "1 MB", "1.08 MB", "2 GB"]


def test_a_module_path_keeps_its_numbers_when_it_is_abbreviated():
    assert formats.abbreviate("encoder.layer12.attention.query", 31) == "encoder.layer12.attention.query"
    assert formats.abbreviate("encoder.layer12.attention.query", 24) == "e.l12.attention.query"
    assert formats.abbreviate("blocks.0.conv", 10) == "b.0.conv"
    assert formats.abbreviate("a_very_long_single_word", 8) == "…le_word"


def test_text_is_cut_in_the_middle():
    assert formats.shorten("abcdefghij", 10) == "abcdefghij"
    assert formats.shorten("abcdefghij", 7) == "ab…ghij"
