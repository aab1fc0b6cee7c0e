from qat.emitters.c.names import Names, identifier


def test_names_become_identifiers():
    assert identifier("layer1.0.conv1") == "layer1_0_conv1"
    assert identifier("0.weight") == "x0_weight"
    assert identifier("größe/höhe") == "gr_e_h_he"
    assert identifier("§§") == "x"
    assert len(identifier("a" * 500)) == 48


def test_every_name_is_handed_out_once_and_no_word_of_c():
    names = Names()
    assert [names.claim(name) for name in ("a.b", "a_b", "a/b", "int", "arena")] == [
        "a_b", "a_b_2", "a_b_3", "int_2", "arena_2",
    ]  # fmt: skip


def test_names_of_kernels_and_of_other_files_are_no_names():
    names = Names()
    assert [names.claim(name) for name in ("copy_u8", "class", "uint8_t", "walk_on")] == [
        "copy_u8_2", "class_2", "uint8_t_2", "walk_on_2",
    ]  # fmt: skip


def test_a_name_with_a_suffix_is_nobody_else():
    names = Names()
    assert names.claim_with("x_bytes", "_bytes") == "x_bytes"
    assert names.claim_with("x", "_bytes") == "x_2"
    assert names.claim("x_2_bytes") == "x_2_bytes_2"
