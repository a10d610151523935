"""`python -m dpo_cli`, which launchers use: the same as `dpo`."""

from dpo_cli.cli.app import main

if __name__ == "__main__":
    main()
