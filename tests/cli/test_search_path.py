from hydra import compose, initialize_config_dir

from qat.cli.search_path import search_package_parts


def test_a_recipe_anywhere_finds_the_parts_and_recipes_of_the_package(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults:\n  - quant: w2a2\n  - schedule: ladder\n")
    search_package_parts()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("mine").schedule.start == 0.2
        assert compose("digits_ptq").post_training.batches == 16


def test_a_folder_given_later_takes_the_place_of_the_one_before(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name / "quant").mkdir(parents=True)
        (tmp_path / name / "quant" / "own.yaml").write_text(f"name: {name}\n")
        search_package_parts(tmp_path / name)
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            (tmp_path / "mine.yaml").write_text("defaults:\n  - quant: own\n")
            assert compose("mine").quant.name == name
    search_package_parts()
