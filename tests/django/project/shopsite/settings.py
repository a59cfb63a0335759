"""A small project. The environment says which database it has, and what CAMORA is."""

import importlib.util
import json
import os
from pathlib import Path

import django

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "not secret"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "shopsite.urls"
STATIC_URL = "static/"
DATABASES = {"default": json.loads(os.environ["SHOP_DATABASE"])}
if "SHOP_QUEUE" in os.environ:
    DATABASES["queue"] = json.loads(os.environ["SHOP_QUEUE"])
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "camora_django",
    "shop",
]
has_backport = importlib.util.find_spec("django_tasks") and "SHOP_FORGETS_BACKPORT" not in os.environ
if django.VERSION < (6,) and has_backport:
    INSTALLED_APPS.append("django_tasks")
_BACKEND = os.environ.get("SHOP_BACKEND", "camora_django.tasks.CamoraBackend")
TASKS = {"default": {"BACKEND": _BACKEND, "QUEUES": ["default", "mail"]}}
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
if "SHOP_CAMORA" in os.environ:
    CAMORA = json.loads(os.environ["SHOP_CAMORA"])
