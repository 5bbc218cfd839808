"""What is done with the sources: setup.sh sets a checkout up, test.sh tests it, manual/ writes its pages."""
