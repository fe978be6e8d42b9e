"""``python -m densevit``: the command line, for torchrun and where its script is not on the path."""

from densevit.cli.main import main

if __name__ == "__main__":
    main()
