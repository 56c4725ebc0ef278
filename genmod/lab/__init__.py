"""The lab: a page that runs a VAE and a diffusion in the browser, without a server or a network."""

from genmod.lab.page import write_lab as write_lab
