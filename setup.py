"""The package, its console script and its extras."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# The package has the only copy of the version; read it without importing the package.
version = (HERE / "source_truto_segments" / "VERSION").read_text().strip()

SANDBOX = ["aiohttp>=3.10,<4"]

setup(
    name="airbyte-source-truto-segments",
    version=version,
    description="Airbyte source for the marketing segments of Truto's unified API",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["source_truto_segments", "source_truto_segments.*"]),
    package_data={
        "source_truto_segments": ["VERSION", "py.typed", "spec.json", "schemas/*.json"],
    },
    entry_points={
        "console_scripts": ["source-truto-segments=source_truto_segments.run:run"],
    },
    install_requires=[
        "airbyte-cdk>=7.34,<8",
        # The CDK's own dependencies: the ranges overlap with those of every allowed CDK version.
        "airbyte-protocol-models-dataclasses>=0.17.1,<1",
        "jsonschema>=4.17.3,<5",
        # 3.11.6 is the first that limits the recursion of `dumps`: CVE-2025-67221.
        "orjson>=3.11.6,<4",
        # 2.33.0 is the first that fixes CVE-2024-47081 (in 2.32.4; .netrc sent to another host) and
        # CVE-2026-25645 (certificates extracted to a predictable name).
        "requests>=2.33,<3",
        "serpyco-rs>=1.10.2,<2",
        "typing-extensions>=4.14.1,<5",
        # 2.7.0 is the first that fixes the vulnerabilities in streaming compressed bodies:
        # CVE-2025-66418 and CVE-2025-66471 (in 2.6.0), CVE-2026-21441 (in 2.6.3), CVE-2026-44432;
        # and CVE-2026-44431 (headers forwarded after a proxy's redirect).
        "urllib3>=2.7,<3",
    ],
    extras_require={
        "benchmarks": [*SANDBOX, "matplotlib>=3.9,<4"],
        "demo": [*SANDBOX, "duckdb>=1.1,<3"],
        "dev": [
            *SANDBOX,
            "PyYAML>=6,<7",
            "airbyte-cdk[dev]>=7.34,<8",
            # It cannot be installed on Python 3.13, so the one test that needs it is skipped there.
            "airbyte-connector-models>=0.1.12,<0.2; python_version < '3.13'",
            "hypothesis>=6.100,<7",
            "mypy>=1.15,<3",
            "pytest>=7.4,<9",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.6,<4",
            "rfc3339-validator>=0.1.4,<1",
            "ruff>=0.17,<0.18",
            "types-PyYAML",
            "types-jsonschema",
            "types-requests",
        ],
        "mutation": ["mutmut>=3.8,<4"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Database",
    ],
)
