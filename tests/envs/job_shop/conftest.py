from hypothesis import settings

settings.register_profile("job_shop", deadline=None, max_examples=60)
settings.load_profile("job_shop")
