def check_manifest(folder, full=False):
    pass
