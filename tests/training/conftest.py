from pages_without_pictures import pages_without_pictures, pictures  # noqa: F401
